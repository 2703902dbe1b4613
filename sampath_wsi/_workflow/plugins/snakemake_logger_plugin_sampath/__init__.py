"""Snakemake finds what shows a run by this file's name; see :mod:`sampath_wsi.runs.display`."""

from sampath_wsi.runs.display import LogHandler as LogHandler
