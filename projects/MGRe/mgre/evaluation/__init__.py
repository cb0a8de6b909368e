"""Evaluation in one pass: metrics, re-ranking, and what the regions are worth."""
