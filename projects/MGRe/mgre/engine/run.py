"""One run: setup, training or evaluation, and the files of results."""

import argparse
import functools
import gc
import importlib.metadata
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastreid
import torch
from fastreid.config import CfgNode
from fastreid.engine import default_setup
from fastreid.utils import comm
from fastreid.utils.env import seed_all_rng
from fastreid.utils.logger import setup_logger

from mgre.config import load_config, overrides_of
from mgre.config.shipped import config_path
from mgre.data import list_images
from mgre.data.checks import check_datasets
from mgre.data.datasets import reading_once
from mgre.data.torch_dataset import name_dead_workers
from mgre.data.unreadable import check_headers
from mgre.engine import processes
from mgre.engine.evaluation_report import REPORT_FILE, evaluate_and_keep, write_reports
from mgre.engine.load_model import load_model
from mgre.engine.trainer import Trainer
from mgre.errors import ConfigError, MGReError, SetupError
from mgre.evaluation.evaluator import Evaluation
from mgre.system.files import make_output_dir, write_atomically

logger = logging.getLogger(__name__)


# The loggers that the console shows. The toolbox's root logger and that of its trainer's defaults are left out, because
# they dump the environment, the config and the model. The log file keeps everything.
SHOWN = (
    "fastreid.data",
    "fastreid.engine.hooks",
    "fastreid.engine.train_loop",
    "fastreid.evaluation",
    "fastreid.utils.checkpoint",
    "fastreid.utils.events",
    "mgre",
)


# Files in OUTPUT_DIR: the metrics of a finished training, and the metrics of --eval-only.
RESULTS_FILE, EVALUATION_FILE = "results.json", "evaluation.json"


def setup(args: argparse.Namespace, *, shown: tuple[str, ...] = SHOWN) -> CfgNode:
    """Prepare a run: read the config, make the output folder and the log files, and set the seeds.

    Args:
        args: the flags of the toolbox's ``default_argument_parser``, and ``allow_imports`` maybe.
        shown: the console shows only these loggers and warnings; the log file keeps everything.
    """
    _leave_imports_to_themselves()
    cfg = _load_config(args)
    if args.eval_only and not cfg.MODEL.WEIGHTS:
        raise ConfigError("--eval-only needs MODEL.WEIGHTS: add MODEL.WEIGHTS path/to/model.pth to the command line")
    make_output_dir(cfg.OUTPUT_DIR)
    _quieten_console(cfg.OUTPUT_DIR, shown)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="mgre")  # the toolbox sets up its own name only
    logger.info("Log file, with environment, config and model: %s", os.path.join(cfg.OUTPUT_DIR, "log.txt"))
    logging.getLogger("fastreid.engine.train_loop").addFilter(_drop_traceback)
    logger.info("Toolbox: %s", _describe_toolbox())
    # The toolbox writes the config file's text to the log, and knows paths only.
    default_setup(cfg, argparse.Namespace(**vars(args) | {"config_file": config_path(args.config_file)}))
    if cfg.SEED >= 0:
        seed_all_rng(cfg.SEED + comm.get_rank())
    return cfg


@functools.cache  # a second call would also hide the garbage of an earlier run
def _leave_imports_to_themselves() -> None:
    """Take what the imports have made out of the garbage collector's sight. None of it is garbage, and each of the
    collector's longer passes takes 0.1 to 0.2 s to look it through."""
    gc.freeze()


def run(args: argparse.Namespace) -> dict[str, Any] | None:
    """Train, or with ``--eval-only`` evaluate MODEL.WEIGHTS, and return the metrics on the main process.

    At the end the metrics are written to OUTPUT_DIR, as :data:`RESULTS_FILE` or :data:`EVALUATION_FILE`, and with
    TEST.REPORT the report of an evaluation.
    """
    cfg = setup(args)
    results, evaluations = _evaluate(cfg) if args.eval_only else (_train(cfg, resume=args.resume), [])
    if comm.is_main_process() and results:
        write_results(os.path.join(cfg.OUTPUT_DIR, EVALUATION_FILE if args.eval_only else RESULTS_FILE), results)
    # After the metrics, which stay if the report cannot be written.
    for path in write_reports(cfg, evaluations, Path(cfg.OUTPUT_DIR, REPORT_FILE)) if evaluations else ():
        logger.info("Report: %s", path)
    return results


def _evaluate(cfg: CfgNode) -> tuple[dict[str, Any], list[Evaluation]]:
    """The metrics; and with TEST.REPORT what was ranked, on the main process."""
    with reading_once():
        check_datasets(cfg, will_train=False)
        model = load_model(cfg)
        _forget_results(cfg.OUTPUT_DIR, EVALUATION_FILE)
        return evaluate_and_keep(cfg, model) if cfg.TEST.REPORT else (Trainer.test(cfg, model), [])


def _train(cfg: CfgNode, *, resume: bool) -> dict[str, Any] | None:
    with name_dead_workers():  # a test set's workers may also die between two evaluations
        with reading_once():
            check_datasets(cfg, will_train=True)
            if cfg.DATASETS.UNREADABLE_IMAGES == "stop":
                paths = sorted({path for members in list_images(cfg).values() for path in members})
                check_headers(paths, cfg.OUTPUT_DIR)
            trainer = Trainer(cfg)
        trainer.resume_or_load(resume=resume)
        _forget_results(cfg.OUTPUT_DIR, RESULTS_FILE)
        return trainer.train()


def _forget_results(folder: str, file_name: str) -> None:
    """Remove the results of an earlier run. If this run is stopped, they would look like its own."""
    if comm.is_main_process():
        Path(folder, file_name).unlink(missing_ok=True)


def write_results(path: str | Path, results: dict[str, Any]) -> None:
    """Metrics by name, or by data set and name where there are several test sets."""
    with write_atomically(path) as unfinished, open(unfinished, "w") as file:
        json.dump(results, file, indent=2, default=float)


def _describe_toolbox() -> str:
    """The toolbox's version and place. The wheel 1.4.0 has __version__ 1.3, so the version of the distribution is told
    too; a git clone is no distribution."""
    try:
        version = importlib.metadata.version("fastreid")
    except importlib.metadata.PackageNotFoundError:
        version = "not installed by pip"
    return f"fastreid {version} in {os.path.dirname(fastreid.__file__)} (__version__ {fastreid.__version__})"


def _quieten_console(output_dir: str, shown: tuple[str, ...]) -> None:
    # The toolbox sets up its logger only once. Here that happens first, so that a filter can be added to the handler.
    for handler in setup_logger(output_dir, distributed_rank=comm.get_rank()).handlers:
        if type(handler) is logging.StreamHandler and handler.stream is sys.stdout:
            handler.addFilter(lambda record: record.name.startswith(shown) or record.levelno >= logging.WARNING)


def _drop_traceback(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], MGReError))


def launch(function: Callable[[argparse.Namespace], object], args: argparse.Namespace) -> None:
    """Call ``function(args)`` in each of the processes that the flags or torchrun ask for: one, or one for each GPU."""
    device = torch.device(_load_config(args).MODEL.DEVICE)
    if device.type == "cpu":
        # The toolbox's loaders and launcher ask the machine for CUDA devices, not the config.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif args.num_gpus > torch.cuda.device_count():
        raise SetupError(f"--num-gpus {args.num_gpus}, but there are {torch.cuda.device_count()} CUDA devices here")
    processes.start(function, args)


def _load_config(args: argparse.Namespace) -> CfgNode:
    """The config of the flags. Where the machine lacks both the device and the data, the error names both."""
    try:
        return load_config(args.config_file, overrides_of(args))
    except SetupError as no_device:
        try:
            list_images(load_config(args.config_file, [*overrides_of(args), "MODEL.DEVICE", "cpu"]))
        except MGReError as no_data:
            raise SetupError(f"{no_device}; and then: {no_data}") from no_data
        raise
