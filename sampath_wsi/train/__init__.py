"""Training of SAM-Path: data, augmentation, loss, metrics and the loop."""
