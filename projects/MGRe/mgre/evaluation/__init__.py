"""Evaluation beyond the toolbox's: what the regions are worth."""
