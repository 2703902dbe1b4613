"""Stage 4: polygons from the class map.

``source`` reads the store that is drawn. ``survey`` finds the connected regions of every chunk, joins them over the
chunk borders and merges what is too small, on the graph of the regions (``regions``). ``outline`` follows and
simplifies the outlines of every chunk and joins those of each region; ``objects`` makes QuPath's objects of them, and
``stage`` writes these to a file. ``tiles`` writes the tiles' mean probabilities, for QuPath's measurement maps.
"""
