"""Stage 5: a slide's picture (``overlay``) and summary (``stage``), and the table of a cohort (``cohort``)."""
