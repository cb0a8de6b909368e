"""The trainer, where it stops before the first step."""

import pytest
from fastreid.config import get_cfg
from mgre.config import load_config
from mgre.engine.trainer import Trainer
from mgre.errors import DataError, SetupError


def test_output_dir_that_cannot_be_made(tmp_path, small_run):
    (tmp_path / "file").write_text("in the way")
    output = ["OUTPUT_DIR", str(tmp_path / "file" / "output")]
    with pytest.raises(SetupError, match=r"OUTPUT_DIR .* cannot be written"):
        Trainer(load_config("configs/MGRe/custom.yml", [*small_run, *output]))


def test_a_training_set_smaller_than_a_batch():
    cfg = get_cfg()
    cfg.SOLVER.IMS_PER_BATCH = 64
    with pytest.raises(DataError, match=r"SOLVER.IMS_PER_BATCH 64"):
        Trainer.build_lr_scheduler(cfg, None, 0)
