"""Tissue masks: detected, or brought by people."""
