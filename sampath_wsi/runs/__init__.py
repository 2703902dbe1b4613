"""Runs of the workflow: planned (``plan``), carried out (``process``), and how each stage went (``record``)."""
