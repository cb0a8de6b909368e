"""Query and gallery images on which an exported model is compared with PyTorch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from fastreid.config import CfgNode

from mgre.data.datasets import build_dataset, split_items
from mgre.data.synthetic.dataset import SyntheticPedestrians
from mgre.data.synthetic.files import SyntheticSpec, ensure_drawn
from mgre.data.torch_dataset import Item
from mgre.errors import DataError
from mgre.evaluation.ranking import eval_market1501

# Of the drawn set: enough for a mean over 24 queries, and few enough for a CPU to embed in seconds.
NUM_IDS, NUM_CAMERAS, IMAGES_PER_CAMERA = 12, 2, 3


@dataclass(frozen=True)
class Crops:
    """Q query and G gallery images of people.

    Attributes:
        name: of the data set.
        paths: of the queries, then of the gallery.
        pids, camids: (Q + G,), identities and cameras.
        num_queries: Q.
    """

    name: str
    paths: list[str]
    pids: np.ndarray
    camids: np.ndarray
    num_queries: int

    def figures(self, distances: np.ndarray) -> dict[str, float]:
        """mAP and Rank-1, in %, of distances (Q, G)."""
        q = self.num_queries
        cmc, precisions, _ = eval_market1501(
            distances, self.pids[:q], self.pids[q:], self.camids[:q], self.camids[q:], max_rank=1
        )
        return {"mAP": 100 * float(np.mean(precisions)), "Rank-1": 100 * float(cmc[0])}


def draw(folder: str) -> Crops:
    """Drawn people of identities that no training has seen, written below ``folder``."""
    spec = SyntheticSpec(
        seed=1, num_train_ids=1, num_test_ids=NUM_IDS, num_cameras=NUM_CAMERAS, images_per_camera=IMAGES_PER_CAMERA
    )
    ensure_drawn(folder, spec, progress=False)
    dataset = SyntheticPedestrians(root=folder, **asdict(spec))
    return _crops("SyntheticPedestrians", dataset.query, dataset.gallery)


def read(cfg: CfgNode, name: str, *, num_ids: int | None = None) -> Crops:
    """The test images of a data set of the toolbox.

    Args:
        num_ids: of so many identities, the first ones; None: of all.

    Raises:
        ConfigError, DataError, SetupError: see :func:`mgre.data.datasets.build_dataset`.
    """
    dataset = build_dataset(cfg, name)
    query, gallery = (split_items(dataset, name, split) for split in ("query", "gallery"))
    if num_ids is not None:
        kept = set(sorted({item[1] for item in query})[:num_ids])
        query, gallery = ([item for item in items if item[1] in kept] for items in (query, gallery))
    if not query or not gallery:
        raise DataError(f"data set {name} has no query or no gallery images: choose another --dataset")
    return _crops(name, query, gallery)


def _crops(name: str, query: Sequence[Item], gallery: Sequence[Item]) -> Crops:
    items = [*query, *gallery]
    return Crops(
        name=name,
        paths=[item[0] for item in items],
        pids=np.array([item[1] for item in items]),
        camids=np.array([item[2] for item in items]),
        num_queries=len(query),
    )
