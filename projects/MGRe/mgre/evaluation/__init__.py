"""Evaluation: the pass over the test images; distances, ranking, re-ranking, query expansion; stage weights."""
