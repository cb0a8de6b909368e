#!/usr/bin/env python
"""Train, evaluate and re-rank MGRe on drawn pedestrians, and say where everything is. Takes train_net.py's flags."""

import sys
import time
from pathlib import Path

import torch
from mgre.config import load_config
from mgre.engine import Trainer, default_argument_parser, main, quieten_console, setup
from mgre.visualization import contact_sheet
from tabulate import tabulate

METRICS = ("mAP", "Rank-1", "Rank-5", "Rank-10", "mINP")
# What the console shows of the log; the file has all of it.
SHOWN = ("fastreid.utils.events", "mgre")


def quickstart() -> None:
    parser = default_argument_parser()
    parser.set_defaults(config_file=str(Path(__file__).parents[1] / "configs/MGRe/quickstart.yml"))
    args = parser.parse_args()
    args.opts = ["MODEL.DEVICE", "cuda" if torch.cuda.is_available() else "cpu", *args.opts]
    start = time.monotonic()
    quieten_console(load_config(args.config_file, args.opts).OUTPUT_DIR, SHOWN)
    cfg = setup(args)

    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    plain = trainer.train()
    cfg.defrost()
    cfg.TEST.RERANK.ENABLED = True
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
    model = getattr(trainer.model, "module", trainer.model).eval()
    batch = next(iter(Trainer.build_test_loader(cfg, cfg.DATASETS.TESTS[0])[0]))
    count = min(16, len(batch["images"]))
    picked = torch.linspace(0, len(batch["images"]) - 1, count).long()
    images = batch["images"][picked.to(batch["images"].device)]
    contact_sheet(images.cpu(), {n: b.cpu() for n, b in model.predict_boxes({"images": images}).items()}).save(path)


if __name__ == "__main__":
    sys.exit(main(quickstart))
