"""Snakemake's logger plugin, found by this file's name; see :mod:`sampath_wsi.runs.display`."""

from sampath_wsi.runs.display import LogHandler as LogHandler
