"""Stage 4: polygons from the class map.

``survey`` finds the connected regions of every chunk and joins them over the chunk borders; ``clean`` merges what is
too small, on the graph of the regions; ``outline`` follows the outlines of every chunk (``polygons``), simplifies them
and cuts them where chunks meet (``seams``); ``core`` puts them together again, and ``drawing`` makes QuPath's objects
of them (in ``pieces``, where they are too large for QuPath). ``source`` opens the store that is drawn; only
``chunks`` reads it. ``tiles`` writes the tiles' mean probabilities, for QuPath's measurement maps.
"""
