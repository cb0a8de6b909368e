"""The trainer, before the first step and after the last one."""

import pytest
from fastreid.config import get_cfg
from fastreid.utils.events import EventStorage
from mgre.config import load_config
from mgre.engine.evaluation_report import evaluate_and_keep
from mgre.engine.trainer import Trainer
from mgre.errors import DataError, SetupError
from mgre.evaluation import evaluator

BASE = "configs/MGRe/Base-MGRe.yml"
WORKERS = ("DATALOADER.NUM_WORKERS", "1")


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


def test_after_a_training_no_worker_is_left_and_another_step_starts_new_ones(toy_run, new_processes):
    trainer = Trainer(load_config(BASE, [*toy_run, *WORKERS]))
    trainer.train()
    assert not new_processes()
    with EventStorage():
        trainer.run_step()
    assert len(new_processes()) == 1
    assert trainer.evaluate()["mAP"] > 0
    assert len(new_processes()) == 2
    trainer.start_epoch = trainer.max_epoch  # as after a resume of a whole training
    trainer.train()
    assert not new_processes()


def test_after_an_evaluation_no_worker_is_left_whether_or_not_it_fails(toy_run, new_processes, monkeypatch):
    cfg = load_config(BASE, [*toy_run, *WORKERS])
    model = Trainer.build_model(cfg)
    assert evaluate_and_keep(cfg, model)[0] == Trainer.test(cfg, model)
    assert not new_processes()
    monkeypatch.setattr(evaluator.OnePassEvaluator, "evaluate", lambda self: 1 / 0)
    for function in (Trainer.test, evaluate_and_keep):
        with pytest.raises(ZeroDivisionError):
            function(cfg, model)
        assert not new_processes()


def test_a_trainers_own_test_is_called_once(toy_run):
    cfg = load_config(BASE, toy_run)
    model = Trainer.build_model(cfg)

    class Own(Trainer):
        calls = 0

        @classmethod
        def test(cls, cfg, model):
            cls.calls += 1
            return super().test(cfg, model)

    assert Own.test(cfg, model) == Trainer.test(cfg, model) and Own.calls == 1
