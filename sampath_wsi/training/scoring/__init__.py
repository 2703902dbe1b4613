"""Tests of models on prepared data: fields joined from samples, scores with intervals, the paper's columns."""
