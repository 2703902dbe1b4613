"""Stage 5: a slide's picture and summary."""
