"""TIFFs to look at beside the slide (``stage``): classes, probability, entropy; ``tiff`` writes them block by block."""
