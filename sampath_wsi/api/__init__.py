"""What a Python program needs: a slide segmented in one call, and results read back.

The command line is made of the same functions. ``segment`` runs all stages, ``models`` makes a model ready for a
device, ``results`` reads what was written.
"""
