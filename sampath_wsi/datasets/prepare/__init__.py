"""From data sets as their users download them to the one layout of :mod:`sampath_wsi.datasets.prepared`."""
