"""Stage 3: the tiles' probabilities blended into one map."""
