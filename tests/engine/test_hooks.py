"""Hooks of the trainer: what is evaluated and written, and when."""

import json
import types

import mgre  # noqa: F401  (before fastreid: it makes fastreid importable)
import pytest
from fastreid.engine import hooks
from fastreid.engine.train_loop import HookBase, TrainerBase
from fastreid.utils.events import EventStorage, JSONWriter
from mgre.engine.hooks import EvaluationHook, MetricPrinter, MetricsWriter
from mgre.engine.trainer import Trainer

# -- Errors while training ------------------------------------------------------------------------


class FailingTrainer(Trainer):
    """The loop of a trainer alone: no config, no model."""

    max_epoch = 1

    def __init__(self, fail_in: str, evaluate) -> None:
        TrainerBase.__init__(self)
        self.fail_in = fail_in
        self.register_hooks([FailingHook(), EvaluationHook(2, evaluate)])

    def loop(self) -> None:
        TrainerBase.train(self, 0, 1, 2)

    def run_step(self) -> None:
        if self.fail_in == "step":
            raise ValueError("the real error")


class FailingHook(HookBase):
    def before_train(self) -> None:
        if self.trainer.fail_in == "start":
            raise ValueError("the real error")

    def after_train(self) -> None:
        if self.trainer.fail_in:
            raise AttributeError("a hook that was not ready")


@pytest.mark.parametrize("fail_in", ["start", "step"])
def test_the_real_error_surfaces_and_nothing_is_evaluated(fail_in):
    evaluations = []
    with pytest.raises(ValueError, match="the real error"):
        FailingTrainer(fail_in, lambda: evaluations.append(1)).loop()
    assert not evaluations


def test_a_finished_training_is_evaluated():
    evaluations = []
    FailingTrainer("", lambda: evaluations.append(1)).loop()
    assert evaluations == [1]


def test_errors_of_hooks_surface_after_a_finished_training():
    trainer = FailingTrainer("", lambda: None)
    trainer.register_hooks([hooks.CallbackHook(after_train=lambda t: types.SimpleNamespace().missing)])
    with pytest.raises(AttributeError, match="missing"):
        trainer.loop()


def test_the_evaluation_after_the_last_step_reaches_the_json_log(tmp_path):
    writer = JSONWriter(str(tmp_path / "metrics.json"))
    hook = MetricsWriter([writer], period=2)
    hook.trainer = types.SimpleNamespace(max_iter=3, iters_per_epoch=3)
    with EventStorage(0) as storage:
        for step in range(3):
            storage.iter = hook.trainer.iter = step
            storage.put_scalar("loss", step)
            hook.after_step()
        storage.put_scalar("mAP", 50.0, smoothing_hint=False)  # what EvalHook does after the epoch's last step
        hook.after_epoch()
        hook.after_train()
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 2]  # the period's step, and the epoch's end
    assert lines[-1]["mAP"] == 50.0


def test_a_run_of_two_steps_is_printed(caplog):
    printer = MetricPrinter(2)
    with EventStorage(0) as storage, caplog.at_level("INFO"):
        for step in (0, 1, 1):  # the last step, and after its epoch
            storage.iter, storage.epoch = step, 0
            storage.put_scalar("total_loss", 1.0)
            printer.write()
    assert printer._last_write[0] == 1
