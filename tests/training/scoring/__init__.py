"""Tests of sampath_wsi.training.scoring."""
