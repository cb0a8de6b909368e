"""Checks a key point file against the data set it is for.

This module has the entry point and the checks of names and sizes. Those of entries and of where the points lie are in
:mod:`mgre.data.keypoint_checks`: importing a file and training make them too.

No check looks at the pictures. Points that stand in another image's entry are therefore found only where something else
in the file gives them away: another image size, a person's score that is the mean of other points' scores, or the order
of the entries. Where all crops have one size and the entries moved as a whole, only the sheets show the fault.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from mgre.data.coco_file import USE_ANOTHER, best_people, read_people
from mgre.data.findings import ERROR, MOST, WARNING, Finding, share_of
from mgre.data.keypoint_checks import check_entries, check_places, check_scores
from mgre.data.keypoints import ImageKeypoints, file_name_of
from mgre.errors import DataError
from mgre.pose.images import image_size


def check_keypoints(
    path: str,
    image_paths: Sequence[str],
    folder: str,
    *,
    train_paths: Collection[str] | None = None,
    min_score: float = 0.3,
) -> list[Finding]:
    """Test a COCO key point JSON against a data set.

    Args:
        path: the key point file.
        image_paths: the images that may have key points.
        folder: the file names in the key point file are relative to this folder.
        train_paths: the images that need key points, because the model is trained on them; None: all.
        min_score: points of a lower score are not trusted.

    Returns:
        Errors first, then warnings. A file that cannot be read at all gives one finding.
    """
    try:
        names, people = read_people(path, remedy=f"make it by the same command without --check, or {USE_ANOTHER}")
    except DataError as error:
        return [Finding(ERROR, str(error))]
    keypoints = best_people(people)
    paths = {file_name_of(image_path, folder): image_path for image_path in image_paths}
    train_names = (
        set(paths) if train_paths is None else {file_name_of(train_path, folder) for train_path in train_paths}
    )
    in_doubt = [*check_entries(names, people), *check_places(keypoints, min_score)]
    findings = [
        *_check_names(keypoints, paths, train_names, min_score),
        *_check_sizes(keypoints, paths),
        *_check_repeated(Counter(name for name, _, _ in people)),
        *(replace(finding, in_doubt=True) for finding in in_doubt),
        *check_scores(keypoints, min_score),
    ]
    return sorted(findings, key=lambda finding: (ERROR, WARNING).index(finding.level))


def _check_names(
    keypoints: Mapping[str, ImageKeypoints], paths: Mapping[str, str], train_names: Collection[str], min_score: float
) -> Iterator[Finding]:
    missing = [name for name in paths if name not in keypoints]
    unknown = [name for name in keypoints if name not in paths]
    if len(missing) == len(paths) and unknown:
        yield Finding(
            ERROR,
            f"the file is of another data set: none of its {len(keypoints)} images (first {unknown[0]}) is among the "
            f"data set's {len(paths)} (first {next(iter(paths), 'none')}); file names are relative to the data set",
        )
        return
    yield from _check_missing(keypoints, missing, train_names, len(paths), min_score)
    if unknown:
        yield Finding(WARNING, f"{share_of(unknown, len(keypoints))} of the file are not in the data set")


def _check_missing(
    keypoints: Mapping[str, ImageKeypoints],
    missing: Sequence[str],
    train_names: Collection[str],
    num_images: int,
    min_score: float,
) -> Iterator[Finding]:
    """Training stops where most training images have no trusted point; test images need no key points."""
    num_train, num_test = len(train_names), num_images - len(train_names)
    needed = [name for name in missing if name in train_names]
    not_needed = [name for name in missing if name not in train_names]
    which = "training split" if num_test else "data set"
    if needed:
        level = ERROR if len(needed) > MOST * num_train else WARNING
        yield Finding(level, f"{share_of(needed, num_train)} of the {which} have no key points; find theirs too")
    if not_needed:
        yield Finding(
            WARNING,
            f"{share_of(not_needed, num_test)} to test on have no key points; training needs none of them, but the IoU "
            "of the regions is measured only where there are some",
        )
    doubted = [name for name in train_names if name in keypoints and not keypoints[name].trusted(min_score).any()]
    if max(len(needed), len(doubted)) <= MOST * num_train < len(needed) + len(doubted):
        yield Finding(
            ERROR,
            f"{len(needed) + len(doubted)} of {num_train} images of the {which} have no trusted point: {len(needed)} "
            f"have no key points, and all scores of {len(doubted)} are too low",
        )


def _check_sizes(keypoints: Mapping[str, ImageKeypoints], paths: Mapping[str, str]) -> Iterator[Finding]:
    both = [name for name in keypoints if name in paths]
    sizes, unreadable = {}, []
    for name in both:
        try:
            sizes[name] = image_size(paths[name])
        except DataError as error:
            unreadable.append(str(error))
    if unreadable:
        yield Finding(WARNING, f"{len(unreadable)} images cannot be read; the first: {unreadable[0]}")
    wrong = [name for name, size in sizes.items() if keypoints[name].size != size]
    if wrong:
        said, size = keypoints[wrong[0]].size, sizes[wrong[0]]
        yield Finding(
            ERROR,
            f"width or height are not the image's in {share_of(wrong, len(both))}: the first is {said[1]} x {said[0]} "
            f"in the file and {size[1]} x {size[0]} on disk (width x height); find the key points in these images",
        )


def _check_repeated(counts: Mapping[str, int]) -> Iterator[Finding]:
    repeated = [name for name, count in counts.items() if count > 1]
    if repeated:
        yield Finding(WARNING, f"{share_of(repeated, len(counts))} have several people; the best score counts")
