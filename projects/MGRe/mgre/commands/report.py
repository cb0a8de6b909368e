"""What ``tools/report.py`` does."""

import argparse
from pathlib import Path

from mgre.commands.evaluated import evaluate, folder_of, load_evaluated
from mgre.engine.evaluation_report import REPORT_FILE, write_reports
from mgre.errors import printable
from mgre.reporting.statistics import FIGURES
from mgre.system.files import make_output_dir


def run(args: argparse.Namespace) -> None:
    """Evaluate a model, and write the report."""
    cfg, model = load_evaluated(args)
    path = Path(args.output or folder_of(cfg) / REPORT_FILE)
    make_output_dir(str(path.parent), "--output")
    evaluation = evaluate(cfg, model)
    for name, metrics in evaluation.metrics.items():
        print(f"{name:11}" + "  ".join(f"{figure} {metrics[figure]:.1f}" for figure in FIGURES))
    write_reports(cfg, [evaluation], path)
    size = path.stat().st_size / 1e6
    print(printable(f"report  {path}  ({size:.1f} MB, with pictures of the data set's people)"))
