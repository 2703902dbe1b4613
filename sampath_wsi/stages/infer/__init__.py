"""Stage 2: class probabilities of every tile."""
