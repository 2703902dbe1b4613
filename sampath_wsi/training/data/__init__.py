"""Training data: one prepared layout, what is prepared into it, splits, and leakage between them."""
