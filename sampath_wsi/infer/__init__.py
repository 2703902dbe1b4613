"""Stage 2: a model's class probabilities of every tile.

``stage`` runs it; ``pipeline`` loads ahead and writes behind the device; ``predictor`` is a model on a device, and
``probabilities`` the layout of the store. ``parts`` are the jobs that share a slide, and ``join`` makes one store of
what they made.
"""
