"""Tests of sampath_wsi.scoring."""
