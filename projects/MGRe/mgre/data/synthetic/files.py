"""Writes a drawn set to disk, or recognises one that is there."""

import json
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mgre.data.keypoints import COCO_KEYPOINTS, COCO_SKELETON
from mgre.data.synthetic import difficulty
from mgre.data.synthetic.identity import Identity, sample_identities
from mgre.errors import ConfigError, DataError

TRAIN, QUERY, GALLERY = "bounding_box_train", "query", "bounding_box_test"
KEYPOINTS_FILE, MANIFEST_FILE = "keypoints.json", "manifest.json"
# Below this, details and key points fall together.
MIN_SIZE = (32, 16)
MAX_SIZE = (1024, 1024)
# The Market-1501 layout has one digit for the camera and four for the identity.
MAX_CAMERAS, MAX_IDENTITIES = 9, 9999

# First entries of the seeds of independent random streams.
_STREAM_TRAIN_IDS, _STREAM_TEST_IDS, _STREAM_CAMERA, _STREAM_IMAGE = range(4)


@dataclass(frozen=True)
class SyntheticSpec:
    """The options of a drawn set.

    Equal specs and ``difficulty.VERSION`` give equal files, byte for byte with the same NumPy and OpenCV.

    Attributes:
        seed: of all random numbers.
        num_train_ids, num_test_ids: identities to draw; the training ones are numbered from 1, the others follow.
        num_cameras: cameras, each of which sees every identity.
        images_per_camera: images of an identity in a camera; of a test identity the first is a query.
        size: pixels (H, W) of the images.

    Raises:
        ConfigError: a value is out of range.
    """

    seed: int = 0
    num_train_ids: int = 100
    num_test_ids: int = 60
    num_cameras: int = 4
    images_per_camera: int = 3
    size: tuple[int, int] = (128, 64)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(self.size))
        ranges = {
            "seed": (0, 2**32 - 1),
            "num_train_ids": (1, MAX_IDENTITIES - 1),
            "num_test_ids": (1, MAX_IDENTITIES - self.num_train_ids),
            "num_cameras": (2, MAX_CAMERAS),
            "images_per_camera": (2, 999),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"DATASETS.SYNTHETIC.{name.upper()} is {value}; give a number from {low} to {high}")
        if len(self.size) != 2 or any(
            not low <= side <= high for low, side, high in zip(MIN_SIZE, self.size, MAX_SIZE, strict=True)
        ):
            raise ConfigError(
                f"DATASETS.SYNTHETIC.SIZE is {self.size}; give (height, width) from {MIN_SIZE} to {MAX_SIZE}"
            )

    @property
    def folder_name(self) -> str:
        height, width = self.size
        return (
            f"SyntheticPedestrians-v{difficulty.VERSION}-{height}x{width}-{self.num_train_ids}+{self.num_test_ids}ids-"
            f"{self.num_cameras}x{self.images_per_camera}-seed{self.seed}"
        )

    @property
    def num_images(self) -> dict[str, int]:
        """Images of each split."""
        num_queries = self.num_test_ids * self.num_cameras
        return {
            TRAIN: self.num_train_ids * self.num_cameras * self.images_per_camera,
            QUERY: num_queries,
            GALLERY: num_queries * (self.images_per_camera - 1),
        }

    def manifest(self) -> dict[str, object]:
        """The content of ``manifest.json`` of the finished set, in JSON's types."""
        return {"version": difficulty.VERSION, **asdict(self), "size": list(self.size), "num_images": self.num_images}

    def rng(self, *stream: int) -> np.random.Generator:
        """A generator for one camera, image or group of identities, independent of the order of drawing."""
        return np.random.default_rng((difficulty.VERSION, self.seed, *stream))


def ensure_drawn(root: str | Path, spec: SyntheticSpec, *, progress: bool = True) -> Path:
    """The folder of the set in ``root``; the set is drawn where it does not exist.

    The set is drawn into a hidden folder beside the final one. An atomic rename gives the complete set its final name,
    so two processes may draw the same set without a race.

    Raises:
        DataError: the folder exists but holds something else, or it cannot be written.
    """
    folder = Path(root) / spec.folder_name
    if not folder.exists():
        unfinished = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}.tmp")
        try:
            unfinished.mkdir(parents=True)
            _draw(unfinished, spec, progress)
            _publish(unfinished, folder)
        except OSError as error:
            raise DataError(
                f"The drawn set {folder} cannot be written ({error}); "
                "make room or set FASTREID_DATASETS to a folder you can write to"
            ) from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    _check(folder, spec)
    return folder


def _publish(unfinished: Path, folder: Path) -> None:
    try:
        unfinished.rename(folder)
    except OSError:
        # Another process may have published the same set first.
        if not folder.exists():
            raise


def _check(folder: Path, spec: SyntheticSpec) -> None:
    remedy = "delete the folder and it will be drawn again"
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} has no readable {MANIFEST_FILE}: it is not a drawn set; {remedy}") from error
    expected = spec.manifest()
    if manifest != expected:
        wrong = [name for name in expected if not isinstance(manifest, dict) or manifest.get(name) != expected[name]]
        raise DataError(f"{folder / MANIFEST_FILE} tells of another set ({', '.join(wrong)} differ); {remedy}")
    if not (folder / KEYPOINTS_FILE).is_file():
        raise DataError(f"{folder / KEYPOINTS_FILE} is missing; {remedy}")
    for split, count in spec.num_images.items():
        found = sum(1 for _ in (folder / split).glob("*.jpg"))
        if found != count:
            raise DataError(f"{folder / split} has {found} images instead of {count}; {remedy}")


def _draw(folder: Path, spec: SyntheticSpec, progress: bool) -> None:
    # Here, because OpenCV takes its time and draws the set once; whoever reads the set needs none.
    import cv2

    from mgre.data.synthetic import scene

    for split in spec.num_images:
        (folder / split).mkdir()
    cameras = [scene.sample_camera(spec.rng(_STREAM_CAMERA, i), spec.size) for i in range(spec.num_cameras)]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    total = sum(spec.num_images.values())
    for file_name, identity, seed, camera in tqdm(
        _plan(spec), total=total, desc="Drawing SyntheticPedestrians", unit="image", disable=None if progress else True
    ):
        rng = spec.rng(_STREAM_IMAGE, *seed)
        image, keypoints = scene.draw_crop(rng, identity, cameras[camera], spec.size)
        # Python writes the file, because OpenCV cannot write to every path, and fails without an exception.
        _, data = cv2.imencode(
            ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, scene.jpeg_quality(rng))
        )
        (folder / file_name).write_bytes(data.tobytes())
        image_id = len(images) + 1
        images.append({"id": image_id, "file_name": file_name, "width": spec.size[1], "height": spec.size[0]})
        values = np.round(keypoints, 3).ravel().tolist()
        annotations.append({"id": image_id, "image_id": image_id, "category_id": 1, "keypoints": values})
    skeleton = [(a + 1, b + 1) for a, b in COCO_SKELETON]  # COCO counts from 1 here
    category = {"id": 1, "name": "person", "keypoints": COCO_KEYPOINTS, "skeleton": skeleton}
    keypoint_file = {"images": images, "annotations": annotations, "categories": [category]}
    (folder / KEYPOINTS_FILE).write_text(json.dumps(keypoint_file))
    (folder / MANIFEST_FILE).write_text(json.dumps(spec.manifest(), indent=2) + "\n")


def _plan(spec: SyntheticSpec) -> Iterator[tuple[str, Identity, tuple[int, int, int], int]]:
    """File name, identity, seed (identity, camera, image) and camera of every image, in the order of the file names."""
    train = sample_identities(spec.rng(_STREAM_TRAIN_IDS), spec.num_train_ids)
    test = sample_identities(spec.rng(_STREAM_TEST_IDS), spec.num_test_ids)
    for pid, identity in enumerate((*train, *test), start=1):
        for camera in range(spec.num_cameras):
            for frame in range(1, spec.images_per_camera + 1):
                split = TRAIN if pid <= spec.num_train_ids else QUERY if frame == 1 else GALLERY
                name = f"{split}/{pid:04d}_c{camera + 1}s1_{frame:06d}_00.jpg"
                yield name, identity, (pid, camera, frame), camera
