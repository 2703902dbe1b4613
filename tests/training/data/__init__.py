"""Tests of sampath_wsi.training.data."""
