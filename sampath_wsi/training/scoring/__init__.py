"""Scores of models on prepared data: metrics, intervals, fields joined from tiles."""
