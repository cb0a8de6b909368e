"""The quickstart: trains MGRe on drawn pedestrians, evaluates it with and without re-ranking, and draws the regions."""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from fastreid.config import CfgNode
from fastreid.engine import default_argument_parser
from tabulate import tabulate

from mgre.engine.run import RESULTS_FILE, setup, write_results
from mgre.engine.trainer import Trainer
from mgre.system.packages import describe_build
from mgre.visualization import contact_sheet, draw_regions

CONFIG = "mgre://quickstart.yml"
METRICS = ("mAP", "Rank-1", "Rank-5", "Rank-10", "mINP")
# The loggers that the console shows; the log file has all of them.
SHOWN = ("fastreid.utils.events", "mgre")


def run(args: argparse.Namespace) -> None:
    """Train, evaluate with and without re-ranking, and print the figures and where the files are."""
    start = time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    words = ["--config-file", CONFIG, "MODEL.DEVICE", device, *args.opts]
    cfg = setup(default_argument_parser().parse_args(words), shown=SHOWN)

    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    plain = trainer.train() or {}  # None on other processes than the main one, which is alone here
    write_results(Path(cfg.OUTPUT_DIR, RESULTS_FILE), plain)
    cfg.defrost()
    cfg.TEST.RERANK.ENABLED = True
    cfg.TEST.REGION_IOU.ENABLED = False  # re-ranking does not change the boxes
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
    used = {"device": torch.cuda.get_device_name() if trainer.model.device.type == "cuda" else "CPU"}
    used |= {module: describe_build(module) for module in ("faiss", "onnxruntime")}
    print("\n" + tabulate((files | used).items(), tablefmt="plain"))
    print(f"\nDone in {time.monotonic() - start:.0f} s.")


def _save_contact_sheet(cfg: CfgNode, trainer: Trainer, path: Path) -> None:
    test_set: Any = trainer.build_test_loader(cfg, cfg.DATASETS.TESTS[0])[0].dataset
    picked = torch.linspace(0, len(test_set) - 1, 16).long().tolist()
    samples = [sample for i in picked if (sample := test_set[i]) is not None]  # None: it cannot be read
    images = torch.stack([sample["images"] for sample in samples])
    boxes = trainer.model.eval().predict_boxes({"images": images})
    boxes_of_image = torch.stack(list(boxes.values()), dim=1).cpu()
    tiles = [draw_regions(image, b) for image, b in zip(images, boxes_of_image, strict=True)]
    contact_sheet(tiles, list(boxes)).save(path)
