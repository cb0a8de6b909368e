"""A gallery on disk: feature vectors with ids, cameras, times and metadata, and exact search in it."""

from mgre.gallery.entries import Entry, Filter
from mgre.gallery.gallery import Gallery, Match
from mgre.gallery.reranking import Rerank

__all__ = ["Entry", "Filter", "Gallery", "Match", "Rerank"]
