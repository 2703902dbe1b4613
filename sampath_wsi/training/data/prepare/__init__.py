"""From data sets as their users download them to the one layout of :mod:`sampath_wsi.training.data.prepared`."""
