"""SAM-Path: the network, its bundles and cards, the zoo of named models, and the checkpoints it is made from."""
