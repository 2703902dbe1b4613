"""Stage 3: the tiles' probabilities blended (``blend``) into one map, block by block.

``dask_pool`` says where the blocks are computed: on threads, or on the workers of a Dask scheduler.
"""
