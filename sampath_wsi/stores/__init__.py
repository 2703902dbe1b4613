"""Zarr stores.

``store`` begins, resumes and finishes them, and says what made them; ``shards`` reads and writes whole shards on many
threads; ``pyramid`` writes levels block by block; ``integrity`` finds and sets aside what is damaged; ``ome`` is the
metadata of OME-Zarr.
"""
