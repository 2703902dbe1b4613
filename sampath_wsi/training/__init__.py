"""Training of SAM-Path: recipes, augmentation, loss and the loop."""
