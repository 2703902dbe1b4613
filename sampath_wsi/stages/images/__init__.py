"""Pictures of a segmentation to open beside the slide, as OME-TIFF."""
