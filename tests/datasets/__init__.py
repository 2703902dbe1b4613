"""Tests of sampath_wsi.datasets."""
