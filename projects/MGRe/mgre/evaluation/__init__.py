"""Evaluation: distances, ranking, re-ranking and query expansion for large galleries; region IoU; stage weights."""
