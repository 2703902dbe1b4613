"""Snakemake finds what shows a run by this file's name; see :mod:`sampath_wsi.cli.workflow_display`."""

from sampath_wsi.cli.workflow_display import LogHandler as LogHandler
