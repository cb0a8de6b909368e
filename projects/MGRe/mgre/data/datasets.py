"""Data sets by their registered names, read from the data folder."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from operator import itemgetter

from fastreid.config import CfgNode
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.data.datasets.bases import ImageDataset
from fastreid.utils import comm
from fastreid.utils.logger import log_first_n

from mgre.data.custom import SPLIT_FOLDERS
from mgre.data.part import DatasetPart
from mgre.data.published import PUBLISHED_SETS, count_differences
from mgre.data.torch_dataset import Item
from mgre.data.validation_split import ValidationSplit, base_of_validation
from mgre.errors import ConfigError, DataError, MGReError, SetupError, nearest
from mgre.reading.image_files import IMAGE_SUFFIXES, describe_other_contents
from mgre.system.file_kinds import ARCHIVE_SUFFIXES, archive_fault
from mgre.system.foreign_messages import MARKET1501_LAYOUT_IS_OLD, is_missing_file

logger = logging.getLogger(__name__)


# The errors of the toolbox's readers for a folder or a file name of another form than expected.
READER_ERRORS = (RuntimeError, AssertionError, AttributeError, ValueError, LookupError, OSError)


_read: dict[tuple[int, str, bool], ImageDataset] | None = None


@contextmanager
def reading_once() -> Iterator[None]:
    """Within the block :func:`build_dataset` reads each data set once for each config object, which must not change."""
    global _read
    before, _read = _read, {}
    try:
        yield
    finally:
        _read = before


def _read_at_most_once(build: Callable[..., ImageDataset]) -> Callable[..., ImageDataset]:
    @wraps(build)
    def built(cfg: CfgNode, name: str, *, combineall: bool = False) -> ImageDataset:
        if _read is None:
            return build(cfg, name, combineall=combineall)
        key = (id(cfg), name, combineall)
        if key not in _read:
            _read[key] = build(cfg, name, combineall=combineall)
        return _read[key]

    return built


@_read_at_most_once
def build_dataset(cfg: CfgNode, name: str, *, combineall: bool = False) -> ImageDataset:
    """Read the registered data set ``name`` from the data folder (``FASTREID_DATASETS``, else ``datasets``).

    ``<name>Val`` is the training set of ``<name>``, of which DATASETS.VALIDATION.NUM_IDS identities are split off as
    the test set. DATASETS.PART keeps a part of the identities.

    All processes have to call this function. The first process of each machine reads first, because some readers write
    files.

    Args:
        cfg: given to data sets that have a ``from_config``.
        name: as in ``DATASETS.NAMES`` and ``DATASETS.TESTS``.
        combineall: train on the test images too.

    Raises:
        ConfigError: no data set has this name; or ``combineall`` is set for a validation set.
        DataError: the folder is missing or has another layout, or there are too few identities for a validation set.
        SetupError: the reader needs a package that is not installed.
    """
    if base := base_of_validation(name):
        return _split_off_validation(cfg, name, base, combineall)
    known = DATASET_REGISTRY._obj_map
    if name not in known:
        raise ConfigError(
            f"Data set '{name}' is not registered{nearest(name, known)}; known ones: {', '.join(sorted(known))}"
        )
    root = os.environ.get("FASTREID_DATASETS", "datasets")
    with first_process_of_machine_first():
        dataset = _read_dataset(cfg, name, root, combineall)
    differences = count_differences(dataset, name, combineall=combineall)
    if differences:
        # Logged once, although each evaluation reads the test sets again.
        log_first_n(
            logging.WARNING,
            f"{name} in '{dataset_folder(dataset)}' is not the published set: {', '.join(differences)}",
            name=__name__,
            key="message",
        )
    part = cfg.DATASETS.PART
    if not (part.NUM_TRAIN_IDS or part.NUM_TEST_IDS):
        return dataset
    return DatasetPart(
        dataset,
        name=name,
        folder=dataset_folder(dataset),
        num_train_ids=part.NUM_TRAIN_IDS,
        num_test_ids=part.NUM_TEST_IDS,
        seed=part.SEED,
    )


def dataset_folder(dataset: ImageDataset) -> str:
    """The folder to which the ``file_name`` of key point files is relative: its ``folder``.

    For a reader without this attribute it is the deepest folder that has all images.
    """
    if hasattr(dataset, "folder"):
        return dataset.folder
    folders = {os.path.dirname(item[0]) for split in ("train", "query", "gallery") for item in getattr(dataset, split)}
    return os.path.commonpath(folders) if folders else ""


def list_images(cfg: CfgNode, *, train_only: bool = False) -> dict[str, list[str]]:
    """The paths of all images the config trains or tests on, by the folder to which key point files refer.

    Args:
        train_only: leave out the images that the config only tests on.

    Raises:
        ConfigError, DataError, SetupError: see :func:`build_dataset`.
    """
    splits = {} if train_only else {name: ["query", "gallery"] for name in cfg.DATASETS.TESTS}
    for name in cfg.DATASETS.NAMES:
        splits.setdefault(name, []).append("train")
    paths: dict[str, set[str]] = {}
    for name, members in splits.items():
        dataset = build_dataset(cfg, name, combineall=cfg.DATASETS.COMBINEALL and name in cfg.DATASETS.NAMES)
        items = (item for split in members for item in getattr(dataset, split))
        paths.setdefault(dataset_folder(dataset), set()).update(item[0] for item in items)
    return {folder: sorted(members) for folder, members in paths.items()}


@contextmanager
def first_process_of_machine_first() -> Iterator[None]:
    """Let the other processes of a machine run the block only after its first process has left the block."""
    first = comm.get_local_rank() == 0
    if not first:
        comm.synchronize()
    try:
        yield
    finally:
        if first:
            comm.synchronize()


def _read_dataset(cfg: CfgNode, name: str, root: str, combineall: bool) -> ImageDataset:
    """Construct the data set and read its splits now, also where the reader reads them lazily."""
    reader = DATASET_REGISTRY.get(name)
    construct = partial(reader, cfg) if hasattr(reader, "from_config") else reader
    try:
        with warnings.catch_warnings():
            # The reader of Market-1501 gives this warning also where it then fails, and our error says more.
            warnings.filterwarnings("ignore", MARKET1501_LAYOUT_IS_OLD)
            dataset = construct(root=root, combineall=combineall)
        for split in ("train", "query", "gallery"):
            getattr(dataset, split)
    except MGReError:
        raise
    except ImportError as error:
        raise SetupError(f"Data set {name} needs the package {error.name}: pip install {error.name}") from error
    except READER_ERRORS as error:
        raise DataError(_explain(error, name, reader, root)) from error
    return dataset


def _split_off_validation(cfg: CfgNode, name: str, base: str, combineall: bool) -> ValidationSplit:
    if combineall:
        raise ConfigError(
            f"DATASETS.COMBINEALL is True, which would train on the identities that {name} splits off: set it to "
            f"False, or train on {base}"
        )
    whole = build_dataset(cfg, base)
    options = cfg.DATASETS.VALIDATION
    return ValidationSplit(
        whole.train, name=name, folder=dataset_folder(whole), num_ids=options.NUM_IDS, seed=options.SEED
    )


def _explain(error: Exception, name: str, reader: type, root: str) -> str:
    """The error of a toolbox's reader, with what the reader looked for, and what to do."""
    layout = PUBLISHED_SETS[name].layout if name in PUBLISHED_SETS else f"the layout of {reader.__module__}"
    given = "FASTREID_DATASETS" if "FASTREID_DATASETS" in os.environ else "./datasets: FASTREID_DATASETS is not set"
    where = f"Data set {name} cannot be read from '{os.path.abspath(root)}' ({given}), where it looked for {layout}"
    reason = " ".join(str(error).split()) or type(error).__name__
    if not is_missing_file(error):
        return (
            f"{where}: {reason}; compare your folder with that, or describe images of your own in a CSV, as "
            "in docs/custom-data.md"
        )
    if archive := _find_archive(root, reader):
        fault = archive_fault(archive)
        remedy = f"'{archive}' {fault}: download it again" if fault else f"unpack '{archive}' there"
        return f"{where}; {remedy}"
    # The toolbox's reason comes last, because its reader may have tried another folder, that of an older layout.
    return f"{where}; put it there, or set FASTREID_DATASETS to the folder that has it (the toolbox's reader: {reason})"


def _find_archive(root: str, reader: type) -> str | None:
    """A download of the data set that is still packed, in the data folder or in the set's own."""
    wanted = getattr(reader, "dataset_name", reader.__name__).lower()
    for folder in (root, os.path.join(root, wanted)):
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            letters = "".join(letter for letter in name.lower() if letter.isalnum())
            if name.lower().endswith(ARCHIVE_SUFFIXES) and letters.startswith(wanted):
                return os.path.join(folder, name)
    return None


def split_items(dataset: ImageDataset, name: str, split: str) -> list[Item]:
    """The items of a split, sorted by path. Readers list folders in the file system's order, which may differ between
    two machines of one training."""
    items = sorted(getattr(dataset, split), key=itemgetter(0))
    if not items:
        folder = dataset_folder(dataset) or "its folder"
        split_folder = os.path.join(folder, SPLIT_FOLDERS[split])
        fault, remedy = f"Data set {name} has no {split} images in '{folder}'", "complete it"
        if contents := describe_other_contents(split_folder):
            fault += f": '{split_folder}' has {contents}, and images end in {', '.join(IMAGE_SUFFIXES)}"
            remedy = f"convert the files, or put the images into '{split_folder}' itself"
        raise DataError(f"{fault}; {remedy}, or take it out of DATASETS.{'NAMES' if split == 'train' else 'TESTS'}")
    return items
