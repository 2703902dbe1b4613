"""Zarr stores.

``store`` begins, resumes and finishes them; ``provenance`` is the record of what made them; ``shards`` reads windows
and writes whole shards; ``pyramid`` writes levels block by block, with the metadata of OME-Zarr; ``integrity`` finds
and sets aside what is damaged.
"""
