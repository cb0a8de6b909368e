#!/usr/bin/env python
"""Train, evaluate and re-rank MGRe on drawn pedestrians, and say where everything is.

Takes config overrides: ``tools/quickstart.py SEED 1 OUTPUT_DIR logs/other``.
"""

import sys
import time
from pathlib import Path

import torch
from mgre.engine import Trainer, default_argument_parser, main, setup
from mgre.visualization import contact_sheet, draw_regions
from tabulate import tabulate

METRICS = ("mAP", "Rank-1", "Rank-5", "Rank-10", "mINP")
# What the console shows of the log; the file has all of it.
SHOWN = ("fastreid.utils.events", "mgre")


def quickstart() -> None:
    start = time.monotonic()
    config_file = str(Path(__file__).parents[1] / "configs/MGRe/quickstart.yml")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    overrides = ["MODEL.DEVICE", device, *sys.argv[1:]]
    cfg = setup(default_argument_parser().parse_args(["--config-file", config_file, *overrides]), shown=SHOWN)

    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    plain = trainer.train()
    cfg.defrost()
    cfg.TEST.RERANK.ENABLED = True
    cfg.TEST.REGION_IOU.ENABLED = False  # it would be the same again
    reranked = Trainer.test(cfg, trainer.model)

    rows = [[name, *(results[m] for m in METRICS)] for name, results in (("plain", plain), ("re-ranked", reranked))]
    print("\n" + tabulate(rows, headers=[f"{cfg.DATASETS.TESTS[0]}, %", *METRICS], floatfmt=".1f"))
    overlaps = {name.removeprefix("IoU/"): value for name, value in plain.items() if name.startswith("IoU/")}
    folder = Path(cfg.OUTPUT_DIR)
    files = {"checkpoint": folder / "model_final.pth", "log": folder / "log.txt"}
    if overlaps:
        print("\n" + tabulate(overlaps.items(), headers=["region", "mean IoU"], floatfmt=".2f"))
        files["picture"] = folder / "regions.png"
        _save_contact_sheet(cfg, trainer, files["picture"])
    print("\n" + tabulate(files.items(), tablefmt="plain"))
    print(f"\nDone in {time.monotonic() - start:.0f} s.")


def _save_contact_sheet(cfg, trainer: Trainer, path: Path) -> None:
    test_set = Trainer.build_test_loader(cfg, cfg.DATASETS.TESTS[0])[0].dataset
    picked = torch.linspace(0, len(test_set) - 1, 16).long().tolist()
    images = torch.stack([test_set[i]["images"] for i in picked])
    boxes = trainer.model.eval().predict_boxes({"images": images})
    boxes_of_image = torch.stack(list(boxes.values()), dim=1).cpu()
    tiles = [draw_regions(image, b) for image, b in zip(images, boxes_of_image, strict=True)]
    contact_sheet(tiles, list(boxes)).save(path)


if __name__ == "__main__":
    sys.exit(main(quickstart))
