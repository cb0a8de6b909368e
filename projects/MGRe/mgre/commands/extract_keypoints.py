"""Finds, imports, checks or draws the key points of a data set's images."""

import argparse
import os
import sys
from collections.abc import Collection, Iterable

import torch
from fastreid.config import CfgNode
from fastreid.utils.logger import setup_logger

from mgre.commands.main import main
from mgre.config import load_config, overrides_of
from mgre.config.shipped import config_path, read_with_base
from mgre.data import list_images
from mgre.data.coco_file import load_keypoints, write_keypoints
from mgre.data.keypoints import file_name_of, keypoint_path
from mgre.errors import ConfigError, DataError, SetupError, nearest
from mgre.pose import (
    IMPORTERS,
    POSE_MODELS,
    FoundKeypoints,
    ImageSet,
    check_keypoints,
    extract_keypoints,
    find_images,
    import_keypoints,
    is_sheet,
    open_journals,
    require_free_output,
    require_free_sheets,
    save_sheets,
    sets_to_write,
    sheet_paths,
    summarise,
)
from mgre.regions import load_region_set

FAILED, SKIPPED, STOPPED = 1, 3, 130


def call(args: argparse.Namespace) -> int:
    """Run the command and return its exit status, :data:`STOPPED` after Ctrl-C."""
    try:
        return main(lambda: run(args))
    except KeyboardInterrupt:
        print(
            "\nstopped; the same command goes on from here" if finds_keypoints(args) else "\nstopped", file=sys.stderr
        )
        return STOPPED


def run(args: argparse.Namespace) -> int:
    """Find, import, check or draw key points, as the options say; the exit status."""
    setup_logger(name="mgre")
    cfg = load(args)
    image_sets = find_image_sets(args, cfg)
    if args.check:
        trained = list_images(cfg, train_only=True) if args.images is None else None
        return max(check(image_set, trained, cfg) for image_set in image_sets)
    if args.sheets:
        return worst(redraw(image_set, cfg, overwrite=args.overwrite) for image_set in image_sets)
    require_own_outputs(image_sets)
    todo = sets_to_write(image_sets, overwrite=args.overwrite)
    for image_set in todo:
        require_free_sheets(image_set.output, image_set.paths, overwrite=args.overwrite)
    return write_imported(args, cfg, image_sets, todo) if args.source else write_found(args, cfg, image_sets, todo)


def finds_keypoints(args: argparse.Namespace) -> bool:
    """Whether the command runs the pose model, and does not only import, check or draw key points."""
    return not (args.source or args.check or args.sheets)


def load(args: argparse.Namespace) -> CfgNode:
    """The config. Its device is that of the command line or of the file, else CUDA where there is a GPU."""
    if args.config_file == "":
        raise ConfigError("--config-file is empty: name a config file, see configs/")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # A part of a data set shares the key point file of the whole set.
    opts = [*overrides_of(args), "DATASETS.PART.NUM_TRAIN_IDS", "0", "DATASETS.PART.NUM_TEST_IDS", "0"]
    cfg = load_config(args.config_file or "", ["MODEL.DEVICE", device, *opts])
    if args.config_file and finds_keypoints(args):  # the other actions use no device
        named = read_with_base(config_path(args.config_file)).get("MODEL", {}).get("DEVICE", device)
        if named != device:
            cfg = load_config(args.config_file, ["MODEL.DEVICE", named, *opts])
    return cfg


def find_image_sets(args: argparse.Namespace, cfg: CfgNode) -> list[ImageSet]:
    """The images to work on by folder, each with the path of its key point file.

    Raises:
        ConfigError: ``--output`` is one file, and there are several folders.
        DataError: a folder has no images.
    """
    listed = list_images(cfg) if args.images is None else {args.images: sorted(find_images(args.images))}
    if args.output and len(listed) > 1:
        raise ConfigError(f"--output is one file, and the config's data sets need {len(listed)}: leave it out")
    image_sets = []
    for folder, paths in listed.items():
        crops = [path for path in paths if not is_sheet(path)]
        if not crops:
            raise DataError(f"'{folder}' has no images (.jpg, .jpeg, .png) in it or below")
        image_sets.append(ImageSet(folder, crops, args.output or default_output(args, cfg, folder)))
    return image_sets


def default_output(args: argparse.Namespace, cfg: CfgNode, folder: str) -> str:
    """The path of a folder's key point file where ``--output`` names none."""
    if args.images is None or args.check or args.sheets:
        return keypoint_path(cfg.DATASETS.KEYPOINTS, folder)
    # Not keypoint_path: a key point file in the working directory is most likely of other images.
    return os.path.join(folder, os.path.expanduser(cfg.DATASETS.KEYPOINTS))


def require_own_outputs(image_sets: list[ImageSet]) -> None:
    """
    Raises:
        ConfigError: two data sets have the same key point file, or a key point file is a folder.
    """
    owners: dict[str, ImageSet] = {}
    for image_set in image_sets:
        owner = owners.setdefault(os.path.realpath(image_set.output), image_set)
        if owner is not image_set:
            raise ConfigError(
                f"DATASETS.KEYPOINTS is '{image_set.output}' for the images of '{owner.folder}' and of "
                f"'{image_set.folder}': give a name, so that there is a file in each of these folders"
            )
        if os.path.isdir(image_set.output):
            raise ConfigError(f"the key point file '{image_set.output}' is a folder: name a file")


def write_found(args: argparse.Namespace, cfg: CfgNode, image_sets: list[ImageSet], todo: list[ImageSet]) -> int:
    """Let the pose model find the key points of the sets in ``todo``, and write them; the exit status."""
    known = [name for name, _ in POSE_MODELS]
    if args.model not in known:
        raise ConfigError(
            f"--model {args.model}: no such pose model{nearest(args.model, known)}; "
            f"known ones: {', '.join(sorted(known))}"
        )
    model = POSE_MODELS.get(args.model)(weights=args.weights, device=cfg.MODEL.DEVICE)
    statuses = []
    with open_journals(todo, model, overwrite=args.overwrite) as journals:
        tell_left(image_sets, journals)
        for image_set, journal in journals.items():
            found = extract_keypoints(model, image_set, journal, overwrite=args.overwrite, batch_size=args.batch_size)
            statuses.append(report(found, image_set, cfg))
    return worst(statuses)


def write_imported(args: argparse.Namespace, cfg: CfgNode, image_sets: list[ImageSet], todo: list[ImageSet]) -> int:
    """Write the key points of another program's file for the sets in ``todo``; the exit status."""
    source_format, source = args.source
    if source_format not in IMPORTERS:
        raise ConfigError(f"--import {source_format}: no such format; known ones: {', '.join(sorted(IMPORTERS))}")
    tell_left(image_sets, todo)
    statuses = []
    for image_set in todo:
        found = import_keypoints(
            source_format,
            source,
            image_set.paths,
            image_set.folder,
            min_score=cfg.DATASETS.KEYPOINT_MIN_SCORE,
            doubtful=cfg.DATASETS.DOUBTFUL_KEYPOINTS,
        )
        info = {"description": f"Imported from {source_format}: {os.path.basename(source)}"}
        require_free_output(image_set, overwrite=args.overwrite)
        write_keypoints(image_set.output, found.keypoints, info=info)
        print(f"{len(found.keypoints)} of {len(image_set.paths)} images have key points in '{source}'")
        statuses.append(report(found, image_set, cfg))
    return worst(statuses)


def tell_left(image_sets: list[ImageSet], written: Collection[ImageSet]) -> None:
    """Print which key point files stay as they are."""
    for image_set in image_sets:
        if image_set not in written:
            print(f"'{image_set.output}' is there already: left as it is")


def report(found: FoundKeypoints, image_set: ImageSet, cfg: CfgNode) -> int:
    """Print the summary and the skipped images, save the sheets, and return the exit status."""
    min_score = cfg.DATASETS.KEYPOINT_MIN_SCORE
    print(f"\n{summarise(found.keypoints, min_score=min_score)}\n\nkey points  {image_set.output}")
    regions = load_region_set(cfg.MODEL.MGRE.REGIONS)
    sheets = sheet_paths(image_set.output)
    status, faulty = 0, found.faulty
    try:
        unseen = save_sheets(found.keypoints, image_set.folder, sheets, regions=regions, min_score=min_score)
    except SetupError as error:  # the next data set does not need these sheets
        print(f"error: {error}", file=sys.stderr)
        status = FAILED
    else:
        faulty = faulty | unseen
        print(*(f"sheet       {sheet}" for sheet in sheets.values() if found.keypoints), sep="\n")
    if faulty:
        print(f"\n{len(faulty)} images were skipped:", *faulty.values(), sep="\n  ", file=sys.stderr)
    return status or (SKIPPED if faulty else 0)


def worst(statuses: Iterable[int]) -> int:
    """The exit status of several sets: failed before skipped before 0."""
    found = set(statuses)
    return next((status for status in (FAILED, SKIPPED) if status in found), 0)


def redraw(image_set: ImageSet, cfg: CfgNode, *, overwrite: bool) -> int:
    """Print the summary and save the sheets of an existing key point file; return the exit status."""
    require_free_sheets(image_set.output, image_set.paths, overwrite=overwrite)
    content = load_keypoints(image_set.output, min_score=cfg.DATASETS.KEYPOINT_MIN_SCORE)
    names = {file_name_of(path, image_set.folder) for path in image_set.paths}
    found = FoundKeypoints({name: keypoints for name, keypoints in content.items() if name in names})
    if not found.keypoints:
        raise DataError(f"'{image_set.output}' has key points of none of the images of '{image_set.folder}'")
    return report(found, image_set, cfg)


def check(image_set: ImageSet, trained: dict[str, list[str]] | None, cfg: CfgNode) -> int:
    """
    Args:
        trained: the images that need key points, by folder; None: all.
    """
    train_paths = None if trained is None else trained.get(image_set.folder, [])
    if train_paths == [] and not os.path.exists(image_set.output):
        print(f"warning: '{image_set.output}' does not exist; images to test on need none\nnothing to refuse")
        return 0
    findings = check_keypoints(
        image_set.output,
        image_set.paths,
        image_set.folder,
        train_paths=train_paths,
        min_score=cfg.DATASETS.KEYPOINT_MIN_SCORE,
    )
    for finding in findings:
        print(finding)
    errors = [finding for finding in findings if finding.level == "error"]
    verdict = "refused" if errors else "accepted"
    if errors and all(error.in_doubt for error in errors):
        verdict += " (training takes it with DATASETS.DOUBTFUL_KEYPOINTS warn, if the points are right)"
    print(f"'{image_set.output}' is {verdict}")
    return FAILED if errors else 0
