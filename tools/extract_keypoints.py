#!/usr/bin/env python
"""Find the key points of a data set's images with a pose model, import those you have, or check a file of them.

Examples:
    tools/extract_keypoints.py --config-file configs/MGRe/market.yml
    tools/extract_keypoints.py --images path/to/crops --model hrnet --weights hrnet_w32_256x192.pth
    tools/extract_keypoints.py --config-file configs/MGRe/market.yml --import boxmot metadata.json
    tools/extract_keypoints.py --config-file configs/MGRe/market.yml --check

Exit status: 0 all is well, 1 an error or a file that --check refuses, 3 done but images were skipped, 130 stopped by
Ctrl-C (the same command goes on from there).
"""

import argparse
import functools
import os
import sys

import torch
from fastreid.config import CfgNode
from mgre.config import load_config
from mgre.data import list_images
from mgre.data.custom import IMAGE_SUFFIXES
from mgre.data.keypoints import ImageKeypoints, file_name_of, write_keypoints
from mgre.engine import main
from mgre.errors import ConfigError, DataError
from mgre.pose import (
    IMPORTERS,
    POSE_MODELS,
    check_keypoints,
    extract_keypoints,
    require_free,
    save_sheets,
    sheet_paths,
    summarise,
)
from mgre.regions import get_regions

SKIPPED, STOPPED = 3, 130


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    images = parser.add_mutually_exclusive_group(required=True)
    images.add_argument("--config-file", default="", help="the images of all splits that this config uses")
    images.add_argument("--images", metavar="DIR", help="all images in a folder and below")
    parser.add_argument("--output", help="key point file (default: DATASETS.KEYPOINTS, in the images' folder)")
    parser.add_argument("--overwrite", action="store_true", help="replace the key point file if it is there")
    models = sorted(name for name, _ in POSE_MODELS)
    parser.add_argument("--model", default="rtmpose", choices=models, help="the pose model (default: %(default)s)")
    parser.add_argument("--weights", default="", help="its weight file (default: the published one, downloaded)")
    parser.add_argument("--batch-size", type=_positive, default=32, help="images at a time (default: %(default)s)")
    parser.add_argument(
        "--import",
        dest="source",
        nargs=2,
        metavar=("FORMAT", "PATH"),
        help=f"take key points you have instead of finding them; formats: {', '.join(sorted(IMPORTERS))}",
    )
    parser.add_argument("--check", action="store_true", help="only check the key point file against the images")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config overrides KEY VALUE, such as MODEL.DEVICE cpu")
    return parser.parse_args(words)


def run(args: argparse.Namespace) -> int:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    cfg = load_config(args.config_file, ["MODEL.DEVICE", device, *args.opts])
    images = {args.images: find_images(args.images)} if args.images else list_images(cfg)
    if args.output and len(images) > 1:
        raise ConfigError(f"--output is one file, and the config's data sets need {len(images)}: leave it out")
    outputs = {folder: args.output or os.path.join(folder, cfg.DATASETS.KEYPOINTS) for folder in images}
    for folder, paths in images.items():  # a folder of crops may have an earlier run's sheets in it
        sheets = {os.path.abspath(sheet) for sheet in sheet_paths(outputs[folder]).values()}
        images[folder] = [path for path in paths if os.path.abspath(path) not in sheets]
    if args.check:
        return max(check(outputs[folder], paths, folder, cfg) for folder, paths in images.items())
    for output in outputs.values():
        require_free(output, overwrite=args.overwrite)
    # Once for all data sets, and not before there is something to do.
    build_model = functools.cache(lambda: POSE_MODELS.get(args.model)(weights=args.weights, device=cfg.MODEL.DEVICE))
    status = 0
    for folder, paths in images.items():
        if args.source:
            found, faulty = import_keypoints(*args.source, paths, folder, outputs[folder]), {}
        else:
            extraction = extract_keypoints(
                build_model, paths, folder, outputs[folder], batch_size=args.batch_size, overwrite=args.overwrite
            )
            found, faulty = extraction.keypoints, extraction.faulty
        report(found, faulty, folder, outputs[folder], cfg)
        status = SKIPPED if faulty else status
    return status


def import_keypoints(
    source_format: str, source: str, paths: list[str], folder: str, output: str
) -> dict[str, ImageKeypoints]:
    if source_format not in IMPORTERS:
        raise ConfigError(f"--import {source_format}: no such format; known ones: {', '.join(sorted(IMPORTERS))}")
    imported = IMPORTERS[source_format](source, folder)
    names = [file_name_of(path, folder) for path in paths]
    found = {name: imported[name] for name in names if name in imported}
    if not found:
        raise DataError(f"'{source}' has key points of {len(imported)} images, none of which is among those asked for")
    write_keypoints(output, found, info={"description": f"Imported from {source_format}: {os.path.basename(source)}"})
    print(f"{len(found)} of {len(names)} images have key points in '{source}'")
    return found


def report(found: dict[str, ImageKeypoints], faulty: dict[str, str], folder: str, output: str, cfg: CfgNode) -> None:
    min_score = cfg.DATASETS.KEYPOINT_MIN_SCORE
    print(f"\n{summarise(found, min_score=min_score)}\n\nkey points  {output}")
    if found:
        regions = [r for members in get_regions(cfg.MODEL.MGRE.REGIONS, (1, 2, 3)).values() for r in members]
        sheets = sheet_paths(output)
        save_sheets(found, folder, sheets, regions=regions, min_score=min_score)
        for sheet in sheets.values():
            print(f"sheet       {sheet}")
    if faulty:
        print(f"\n{len(faulty)} images were skipped:", *faulty.values(), sep="\n  ", file=sys.stderr)


def check(output: str, paths: list[str], folder: str, cfg: CfgNode) -> int:
    findings = check_keypoints(output, paths, folder, min_score=cfg.DATASETS.KEYPOINT_MIN_SCORE)
    for finding in findings:
        print(f"{finding.level}: {finding.message}")
    refused = any(finding.level == "error" for finding in findings)
    print(f"'{output}' is {'refused' if refused else 'accepted'}")
    return int(refused)


def find_images(folder: str) -> list[str]:
    paths = [
        os.path.join(parent, name)
        for parent, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
    ]
    if not paths:
        raise DataError(f"--images '{folder}' has no images ({', '.join(IMAGE_SUFFIXES)}) in it or below")
    return sorted(paths)


def _positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


if __name__ == "__main__":
    args = parse_args()
    try:
        sys.exit(main(lambda: run(args)))
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        sys.exit(STOPPED)
