"""Training data: one prepared layout, the preparations of data sets, splits, and leakage between them."""
