"""What the toolbox's readers of data sets read: images, names, lists and folders."""

import functools
import glob
import io
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NoReturn

from fastreid.data import data_utils
from fastreid.data.datasets import CUHK03, MSMT17, PRID, DukeMTMC, Market1501, Shinpuhkan
from fastreid.data.datasets.bases import ImageDataset
from fastreid.utils.file_io import PathManager
from PIL import Image

from mgre.compat.patching import Overlay, adapt
from mgre.data.cuhk03 import check_matlab_files
from mgre.data.custom import SPLIT_FOLDERS
from mgre.errors import DataError, shell_word
from mgre.reading.image_files import describe_other_contents, list_image_files, list_image_files_below
from mgre.reading.images import load_image
from mgre.reading.text_files import read_lines


def decode_by_own_decoder() -> None:
    """``read_image`` is :func:`mgre.reading.images.load_image`.

    The toolbox's clips 16 bits at white, shows the hidden colours of transparent pixels, and keeps a fourth channel.
    """

    def make(read_image: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(read_image)
        def decoded(file_name: str, format: str | None = None) -> Image.Image:
            image = load_image(PathManager.get_local_path(str(file_name)))
            if format == "BGR":
                return Image.merge("RGB", image.split()[::-1])
            return image.convert(format or "RGB")

        return decoded

    adapt(data_utils, "read_image", make)


def _module(name: str) -> ModuleType:
    return sys.modules[f"fastreid.data.datasets.{name}"]


# -- Folders --------------------------------------------------------------------------------------

# The toolbox's files that say ``import glob``, and those that say ``from glob import glob``.
_GLOB_MODULES = ("cuhk_sysu", "dukemtmcreid", "market1501", "veri", "wildtracker")
_GLOB_FUNCTIONS = (
    *("caviara", "grid", "iLIDS", "lpw", "pes3d", "pku", "prai"),
    *("saivt", "sensereid", "sysu_mm", "thermalworld", "viper"),
)
# Of these the images lie in one folder.
_FLAT = ("cuhk_sysu", "dukemtmcreid", "market1501", "veri")


def _always(replacement: Any) -> Callable[[Any], Any]:
    """A function of one argument that gives ``replacement`` whatever it is called with."""
    return lambda original: replacement


def _images_by_pattern(pattern: str) -> list[str]:
    """The images of the folder of a pattern like ``folder/*.jpg``, of whatever suffix."""
    folder = os.path.dirname(pattern)
    return list_image_files(folder) if os.path.isdir(folder) else []


def _images_of_flat_folder(pattern: str) -> list[str]:
    paths = _images_by_pattern(pattern)
    folder = os.path.dirname(pattern)
    if not paths and (contents := describe_other_contents(folder)):
        raise DataError(
            f"'{folder}' has no images, but {contents}; put the images of this data set into it directly, or "
            f"{_as_own_set(os.path.dirname(folder))}"
        )
    return paths


def _as_own_set(folder: str) -> str:
    """For a message: how the images of ``folder``, which are not those of a public set, are read."""
    if all(os.path.isdir(os.path.join(folder, name)) for name in SPLIT_FOLDERS.values()):
        return (
            "read the folder as a set of your own: DATASETS.NAMES \"('CustomReID',)\" DATASETS.TESTS "
            f"\"('CustomReID',)\" DATASETS.CUSTOM.ROOT {shell_word(folder)}"
        )
    return "read it as a set of your own: DATASETS.NAMES \"('CustomReID',)\" (docs/custom-data.md)"


def take_all_suffixes() -> None:
    """Readers that look for ``*.jpg`` take all images of the folder, whatever the suffix and its case, as CustomReID.

    Files that an operating system hides are left out, and what else is left out is counted and named.
    """
    for name in _GLOB_MODULES:
        find = _images_of_flat_folder if name in _FLAT else _images_by_pattern
        adapt(_module(name), "glob", _always(Overlay(glob, glob=find)))
    for name in _GLOB_FUNCTIONS:
        adapt(_module(name), "glob", _always(_images_by_pattern))


def _read_prid(dataset: PRID, train_path: str) -> list[list[str]]:
    items = []
    for path in list_image_files_below(train_path):
        identity, camera = os.path.basename(os.path.dirname(path)), os.path.basename(path)
        labels = identity.split("_")[1], camera.split("_")[0]
        items.append([path, *(f"{dataset.dataset_name}_{label}" for label in labels)])
    return items


def _read_shinpuhkan(dataset: Shinpuhkan, train_path: str) -> list[tuple[str, ...]]:
    items = []
    for path in list_image_files_below(train_path):
        parts = os.path.basename(path).split("_")
        items.append((path, *(f"{dataset.dataset_name}_{label}" for label in (parts[0], parts[2]))))
    return items


def _in_the_guise_of(read: Callable[..., Any]) -> Callable[[Any], Any]:
    """A function that gives ``read`` the name and the documentation of what it is called with."""
    return lambda original: functools.wraps(original)(read)


def take_all_suffixes_below() -> None:
    """PRID and Shinpuhkan, which walk through folders, take all images too; theirs take hidden files for images."""
    for reader, read in ((PRID, _read_prid), (Shinpuhkan, _read_shinpuhkan)):
        adapt(reader, "process_train", _in_the_guise_of(read))


# -- Names ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _NameForm:
    """The form of an image's name, in place of the pattern with which the toolbox looks through the whole path.

    Attributes:
        data_set: its name.
        pattern: of the beginning of the name; two groups, of which the first is the identity.
        identities: the published ones, first and last; None for any.
        cameras: the published ones, first and last; None where the second group is no camera.
        junk: identities outside the range that the reader knows.
    """

    data_set: str
    pattern: re.Pattern[str]
    identities: tuple[int, int] | None = None
    cameras: tuple[int, int] | None = None
    junk: tuple[int, ...] = ()

    def search(self, path: str) -> re.Match[str]:
        """The match of an image's name, with all digits of both numbers.

        Raises:
            DataError: the name has another form, or one of its numbers is not a published one.
        """
        match = self.pattern.match(os.path.basename(path))
        if match is None:
            self._refuse(path, "its name does not begin with identity and camera")
        identity, camera = map(int, match.groups())
        if self.identities and not _is_within(identity, self.identities) and identity not in self.junk:
            self._refuse(path, f"its identity is {identity}")
        if self.cameras and not _is_within(camera, self.cameras):
            self._refuse(path, f"its camera is {camera}")
        return match

    def _refuse(self, path: str, fault: str) -> NoReturn:
        spans = (("identities", self.identities), ("cameras", self.cameras))
        published = " and ".join(f"{what} {span[0]} to {span[1]}" for what, span in spans if span)
        raise DataError(
            f"Image '{path}' is no image of {self.data_set}{f', which has {published}' if published else ''}: {fault}; "
            f"remove it, or {_as_own_set(os.path.dirname(os.path.dirname(path)))}"
        )


def _is_within(number: int, span: tuple[int, int]) -> bool:
    return span[0] <= number <= span[1]


_IDENTITY_CAMERA = re.compile(r"(-?\d+)_c(\d+)")
_NAME_FORMS = {
    "market1501": _NameForm("Market1501", _IDENTITY_CAMERA, (0, 1501), (1, 6), junk=(-1,)),
    "dukemtmcreid": _NameForm("DukeMTMC", _IDENTITY_CAMERA, None, (1, 8)),
    "veri": _NameForm("VeRi", _IDENTITY_CAMERA, (0, 776), (1, 20)),
    "cuhk_sysu": _NameForm("cuhkSYSU", re.compile(r"p(-?\d+)_s(\d+)")),
}


def read_whole_numbers() -> None:
    """Readers that take identity and camera from a name read all digits, of the name alone, and name what is wrong.

    The toolbox's patterns take the first digit of a camera, so that camera 12 is camera 1, and the first match in the
    whole path, which may be in the name of a folder. An assertion says neither which image nor what is allowed.
    """
    for name, form in _NAME_FORMS.items():
        adapt(_module(name), "re", _always(Overlay(re, compile=_always(form))))


# -- Lists ----------------------------------------------------------------------------------------

# What a line of a reader's lists looks like, with an example.
_LINE_FORMS = {
    "msmt17": (
        re.compile(r"(?:[^\s_/]+/)*[^\s_/]+_[^\s_/]+_\d+_\S+ -?\d+"),
        "0000/0000_000_01_0303morning_0015_0.jpg 0",
    ),
    "vehicleid": (re.compile(r"\d+ \d+"), "0000001 1"),
    "veriwild": (re.compile(r"[^/;]+/[^/;]+(;.*)?"), "00001/000001.jpg"),
    "AirportALERT": (re.compile(r"[^\\]+\\\d+\\.+"), r"cam1\11001\000001.jpg"),
}


def read_lists_by_line() -> None:
    """Lists may have blank lines, a byte-order mark and any line ends; a line of another form is named by its number.

    The toolbox's readers stop at a blank line, without the file's name, and take a byte-order mark into the first path.
    """
    for name, (form, example) in _LINE_FORMS.items():

        def open_list(path: str, mode: str = "r", form: re.Pattern[str] = form, example: str = example) -> io.StringIO:
            return io.StringIO("".join(f"{line}\n" for line in read_lines(path, form, example)))

        adapt(_module(name), "open", _always(open_list))


def check_before_extraction() -> None:
    """CUHK03's MATLAB files are opened before the images are taken out of them.

    The toolbox extracts for minutes before it opens the last of the files, which may be a web page or cut short.
    """

    def make(preprocess_split: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(preprocess_split)
        def checked(dataset: CUHK03) -> None:
            kinds = ("classic_detected", "classic_labeled", "new_detected", "new_labeled")
            splits = [os.path.join(dataset.dataset_dir, f"splits_{kind}.json") for kind in kinds]
            if not all(map(os.path.exists, (dataset.imgs_labeled_dir, dataset.imgs_detected_dir, *splits))):
                check_matlab_files(dataset)
            preprocess_split(dataset)

        return checked

    adapt(CUHK03, "preprocess_split", make)


# The folder of a data set of the toolbox, of those to which published key point files may belong.
_FOLDERS: dict[type[ImageDataset], Callable[[ImageDataset], str]] = {
    Market1501: lambda dataset: dataset.data_dir,
    DukeMTMC: lambda dataset: dataset.dataset_dir,
    CUHK03: lambda dataset: dataset.dataset_dir,
    MSMT17: lambda dataset: os.path.dirname(dataset.train_dir),
}


def tell_folders_and_labels() -> None:
    """Readers of the toolbox have the attributes by which any data set tells its ``folder`` and ``training_labels``."""

    def labels(dataset: ImageDataset) -> dict[int, str]:
        return {identity: f"{dataset.dataset_name}_{identity}" for _, identity, _ in (*dataset.query, *dataset.gallery)}

    for reader, folder in _FOLDERS.items():
        _add_attribute(reader, "folder", folder)
    for reader in (Market1501, DukeMTMC):
        _add_attribute(reader, "training_labels", labels)


def _add_attribute(owner: type, name: str, compute: Callable[[ImageDataset], object]) -> None:
    attribute = functools.cached_property(compute)  # unlike a property, a subclass may set it
    attribute.__set_name__(owner, name)
    setattr(owner, name, attribute)


ADAPTATIONS = (
    decode_by_own_decoder,
    take_all_suffixes,
    take_all_suffixes_below,
    read_whole_numbers,
    read_lists_by_line,
    check_before_extraction,
    tell_folders_and_labels,
)
