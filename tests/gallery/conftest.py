"""Small galleries."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from mgre.gallery import Gallery

MODEL = "a model"


@pytest.fixture
def draw() -> Callable[..., np.ndarray]:
    """Vectors (N, D) whose energy is in few directions, as that of real features, and of no common norm."""

    def drawn(count: int, dim: int = 64, seed: int = 0, fall: float = 0.85) -> np.ndarray:
        random = np.random.default_rng(seed)
        scales = np.arange(1, dim + 1) ** -fall
        return (random.standard_normal((count, dim)) * scales * random.uniform(0.1, 9, (count, 1))).astype(np.float32)

    return drawn


@pytest.fixture
def make(tmp_path) -> Iterator[Callable[..., Gallery]]:
    """Make a gallery in ``tmp_path / "index"``."""
    opened = []

    def made(dim: int = 64) -> Gallery:
        opened.append(Gallery.create(str(tmp_path / "index"), dimension=dim, fingerprint=MODEL, record='{"a": 1}'))
        return opened[-1]

    yield made
    for gallery in opened:
        gallery.close()


@pytest.fixture
def brute_order() -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """(B, N): the vectors by their cosine with each query, in float64, ties by their places."""

    def order(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        unit = [
            a.astype(np.float64) / np.linalg.norm(a.astype(np.float64), axis=1)[:, None] for a in (queries, vectors)
        ]
        return np.argsort(-(unit[0] @ unit[1].T), axis=1, kind="stable")

    return order
