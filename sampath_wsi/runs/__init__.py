"""Runs of the workflow: planned (``plan``), carried out (``process``), and the record of each stage (``record``)."""
