"""The drawn set as a data set of the toolbox."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from fastreid.config import CfgNode, configurable
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.data.datasets.bases import ImageDataset

from mgre.data.synthetic.files import GALLERY, QUERY, TRAIN, SyntheticSpec, ensure_drawn

_FILE_NAME = re.compile(r"(\d+)_c(\d+)s")


@DATASET_REGISTRY.register()
class SyntheticPedestrians(ImageDataset):
    """Drawn pedestrians with exact key points; the images are drawn on first use.

    Groups of identities share colours, pattern, cut and build, and differ in small details only. The folder has the
    Market-1501 layout plus ``keypoints.json``, COCO key point JSON in pixels of the crop. The score of a point is 1.0
    if the point is visible, 0.5 behind the person's own body, and 0.0 outside the image or hidden by something else.

    Attributes:
        folder: the set's folder.
    """

    dataset_name = "synthetic"

    @configurable
    def __init__(
        self,
        *,
        root: str = "datasets",
        seed: int = 0,
        num_train_ids: int = 100,
        num_test_ids: int = 60,
        num_cameras: int = 4,
        images_per_camera: int = 3,
        size: Sequence[int] = (128, 64),
        **kwargs: Any,
    ) -> None:
        """
        Args:
            root: the folder in which the set's folder is, or is made.
            seed, num_train_ids, num_test_ids, num_cameras, images_per_camera, size: see :class:`SyntheticSpec`.
            kwargs: of the toolbox's ``ImageDataset``.

        Raises:
            ConfigError: a value is out of range.
            DataError: the folder exists but holds something else, or it cannot be written.
        """
        spec = SyntheticSpec(
            seed=seed,
            num_train_ids=num_train_ids,
            num_test_ids=num_test_ids,
            num_cameras=num_cameras,
            images_per_camera=images_per_camera,
            size=cast(tuple[int, int], tuple(size)),  # which refuses another number of sides
        )
        folder = ensure_drawn(root, spec)
        self.folder = str(folder)
        train = [
            (path, f"{self.dataset_name}_{pid}", f"{self.dataset_name}_{camera}")
            for path, pid, camera in _read(folder / TRAIN)
        ]
        super().__init__(train, _read(folder / QUERY), _read(folder / GALLERY), **kwargs)

    @classmethod
    def from_config(cls, cfg: CfgNode, *, root: str = "datasets", **kwargs: Any) -> dict[str, object]:
        synthetic = cfg.DATASETS.SYNTHETIC
        return {
            "root": root,
            "seed": synthetic.SEED,
            "num_train_ids": synthetic.NUM_TRAIN_IDS,
            "num_test_ids": synthetic.NUM_TEST_IDS,
            "num_cameras": synthetic.NUM_CAMERAS,
            "images_per_camera": synthetic.IMAGES_PER_CAMERA,
            "size": synthetic.SIZE,
            **kwargs,
        }


def _read(folder: Path) -> list[tuple[str, int, int]]:
    """(path, identity, camera from 0) of the images of a split, by name."""
    named = ((path, _FILE_NAME.match(path.name)) for path in sorted(folder.glob("*.jpg")))
    return [(str(path), int(name[1]), int(name[2]) - 1) for path, name in named if name]
