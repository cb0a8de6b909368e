"""A training that is stopped and resumed ends as one that was not."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from fastreid.config import CfgNode
from fastreid.data import CommDataset, build_reid_train_loader
from fastreid.data.transforms import build_transforms
from fastreid.engine import default_argument_parser
from mgre.engine.checkpointing import TrainingCheckpointer
from mgre.engine.run import run, setup
from mgre.engine.trainer import Trainer
from mgre.errors import DataError
from mgre.system.randomness import CUBLAS_VARIABLE
from torch.utils.data import DataLoader

pytestmark = pytest.mark.slow

BASE = "configs/MGRe/Base-MGRe.yml"
# One evaluation at the end of three epochs, where evaluations and what they save are not the point.
EVALUATED_ONCE = ("TEST.EVAL_PERIOD", "3")


@pytest.fixture
def train(toy_run, tmp_path, take_down_logs):
    """Run train_net's ``run`` with the toy run's overrides, three epochs of two steps, into ``tmp_path / name``."""

    def call(name: str, *overrides: str, flags: tuple[str, ...] = ()) -> dict:
        options = [*toy_run, "SOLVER.MAX_EPOCH", "3", "OUTPUT_DIR", str(tmp_path / name), *overrides]
        take_down_logs()
        return run(default_argument_parser().parse_args(["--config-file", BASE, *flags, *options]))

    return call


@pytest.fixture(scope="module")
def undisturbed_runs() -> dict[tuple[str, ...], tuple[dict, dict]]:
    """By overrides, the metrics and the final checkpoint of an undisturbed run, which all tests compare with."""
    return {}


@pytest.fixture
def undisturbed(train, tmp_path, undisturbed_runs):
    """The metrics and the final checkpoint of a run that nothing disturbs; it is trained for the first test alone."""

    def call(*overrides: str) -> tuple[dict, dict]:
        if overrides not in undisturbed_runs:
            metrics = train("straight", *overrides)
            files = {path.stem for path in (tmp_path / "straight").glob("*.pth")}
            assert "model_before_evaluation" not in files
            undisturbed_runs[overrides] = metrics, load(tmp_path / "straight" / "model_final.pth")
        return undisturbed_runs[overrides]

    return call


@pytest.fixture
def stop_after(monkeypatch):
    """Let the training get a signal in the step with that number, once."""

    def stop(step: int, number: int = signal.SIGTERM) -> None:
        run_step = Trainer.run_step

        def stopped(trainer: Trainer) -> None:
            run_step(trainer)
            if trainer.iter == step:
                monkeypatch.setattr(Trainer, "run_step", run_step)
                os.kill(os.getpid(), number)

        monkeypatch.setattr(Trainer, "run_step", stopped)

    return stop


def assert_same(left: object, right: object, where: str = "") -> None:
    """Tensors bit by bit, also where they are no numbers, in any nesting."""
    assert type(left) is type(right), where
    if isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype and left.shape == right.shape, where
        assert left.cpu().numpy().tobytes() == right.cpu().numpy().tobytes(), where
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key in left:
            assert_same(left[key], right[key], f"{where}/{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), where
        for index, pair in enumerate(zip(left, right, strict=True)):
            assert_same(*pair, f"{where}/{index}")
    else:
        assert left == right, where


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize(
    ("workers", "steps", "overrides"),
    [
        (0, range(6), ()),  # the last step of an epoch (1, 3), of all (5), and one within (0, 2, 4)
        (2, (0, 4), ("SOLVER.WARMUP_ITERS", "3", "SOLVER.SCHED", "CosineAnnealingLR", "TEST.EVAL_PERIOD", "2")),
    ],
)
def test_cut_anywhere_it_ends_as_the_undisturbed_run(
    train, undisturbed, stop_after, tmp_path, workers, steps, overrides
):
    overrides = ("DATALOADER.NUM_WORKERS", str(workers), *overrides)
    metrics, straight = undisturbed(*overrides)
    for step in steps:
        stop_after(step)
        with pytest.raises(SystemExit) as stopped:
            train("cut", *overrides, flags=("--resume",))
        assert stopped.value.code == 128 + 15
        assert load(tmp_path / "cut" / "model_interrupted.pth")["iteration"] == step + 1
    assert train("cut", *overrides, flags=("--resume",)) == metrics
    assert straight["optimizer"]["state"][0]["step"] == 6
    # Everything: weights, optimizer, schedule, random states, best score.
    assert_same(straight, load(tmp_path / "cut" / "model_final.pth"))


def test_deterministic_kernels_are_asked_for_while_a_training_runs(train, monkeypatch):
    monkeypatch.delenv(CUBLAS_VARIABLE, raising=False)
    run_step, seen = Trainer.run_step, []

    def noted(trainer: Trainer) -> None:
        run_step(trainer)
        seen.append((torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark))

    monkeypatch.setattr(Trainer, "run_step", noted)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    for name, expected in (("True", (True, False)), ("False", (False, True))):
        train(name, *EVALUATED_ONCE, "DETERMINISTIC", name, "CUDNN_BENCHMARK", "True")
        assert seen == [expected] * 6
        assert not torch.are_deterministic_algorithms_enabled() and CUBLAS_VARIABLE not in os.environ
        seen.clear()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("half", ["False", "True"])
def test_deterministic_trainings_on_the_gpu_end_in_the_same_bits(train, stop_after, tmp_path, half):
    options = (
        *("MODEL.DEVICE", "cuda", "DETERMINISTIC", "True", "CUDNN_BENCHMARK", "True", "SOLVER.AMP.ENABLED", half),
        *("MODEL.MGRE.BACKBONE", "build_resnet_backbone", "MODEL.BACKBONE.DEPTH", "18x"),
    )
    train("straight", *options)
    train("again", *options)
    stop_after(2)
    with pytest.raises(SystemExit):
        train("cut", *options)
    train("cut", *options, flags=("--resume",))
    straight, again, cut = (load(tmp_path / name / "model_final.pth") for name in ("straight", "again", "cut"))
    assert_same(straight, again)
    assert_same(straight, cut)


def test_the_other_signal_and_the_message(train, stop_after, tmp_path, capsys):
    stop_after(2, signal.SIGINT)
    with pytest.raises(SystemExit) as stopped:
        train("cut", *EVALUATED_ONCE)
    assert stopped.value.code == 128 + 2
    output = capsys.readouterr().out
    assert "Stopped by SIGINT after step 3 of 6" in output and "--resume goes on from there" in output
    assert "Traceback" not in output
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    train("cut", *EVALUATED_ONCE, flags=("--resume",))
    assert "3 of 6 steps are done (1 of 3 epochs)" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "cut" / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines if "total_loss" in line] == [1, 3, 5]  # each epoch's last step, once


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(train, tmp_path, capsys):
    options = ("SOLVER.CHECKPOINT_PERIOD", "1", "SOLVER.CHECKPOINTS_KEPT", "2")
    train("straight", *options)
    out = tmp_path / "straight"
    assert {path.name for path in out.glob("*.pth")} == {
        *("model_0000.pth", "model_0001.pth"),
        *("model_best.pth", "model_final.pth"),
    }
    final = load(out / "model_final.pth")
    for name in ("model_final", "model_best"):
        path = out / f"{name}.pth"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1  # a bit in a tensor
        path.write_bytes(content)
        os.utime(path, (2e9, 2e9))
    train("straight", *options, flags=("--resume",))
    output = capsys.readouterr().out
    assert "model_final.pth' is damaged" in output and "model_best.pth' is damaged" in output
    assert "Resuming from" in output and "model_0001.pth': 4 of 6 steps are done" in output
    assert_same(load(out / "model_final.pth"), final)


def evaluate(metric: float) -> classmethod:
    return classmethod(lambda cls, cfg, model, test_sets=None: {"metric": metric})


@pytest.mark.parametrize("stale", [False, True])
def test_killed_between_the_best_and_the_final_checkpoint(train, tmp_path, monkeypatch, stale):
    if stale:  # there is the final one of a shorter training
        monkeypatch.setattr(Trainer, "test", evaluate(40.0))
        train("cut", "SOLVER.MAX_EPOCH", "1")
        train("straight", "SOLVER.MAX_EPOCH", "1")
    monkeypatch.setattr(Trainer, "test", evaluate(50.0))
    train("straight", flags=("--resume",))
    save = TrainingCheckpointer.save

    def die_at_the_end(checkpointer: TrainingCheckpointer, name: str, **kwargs: object) -> None:
        if name == "model_final":
            raise KeyboardInterrupt
        save(checkpointer, name, **kwargs)

    with monkeypatch.context() as patches, pytest.raises(KeyboardInterrupt):
        patches.setattr(TrainingCheckpointer, "save", die_at_the_end)
        train("cut", flags=("--resume",))
    assert (tmp_path / "cut" / "last_checkpoint").read_text() == "model_best.pth"
    assert train("cut", flags=("--resume",)) == {"metric": 50.0}
    straight, cut = (load(tmp_path / name / "model_final.pth") for name in ("straight", "cut"))
    assert_same(straight, cut)


def test_a_worse_epoch_after_a_resume_leaves_the_best_checkpoint(train, tmp_path, monkeypatch):
    options = ("SOLVER.CHECKPOINT_PERIOD", "1")
    monkeypatch.setattr(Trainer, "test", evaluate(50.0))
    train("out", *options, "SOLVER.MAX_EPOCH", "1")
    monkeypatch.setattr(Trainer, "test", evaluate(40.0))
    train("out", *options, flags=("--resume",))
    best, last = (load(tmp_path / "out" / f"model_{name}.pth") for name in ("best", "final"))
    assert (best["metric"], best["epoch"]) == (50.0, 0)
    assert (last["metric"], last["epoch"], last["best_metric"]) == (40.0, 2, 50.0)


@pytest.mark.parametrize(
    "warmup",
    [
        ("SOLVER.WARMUP_EPOCHS", "2"),
        ("SOLVER.WARMUP_ITERS", "4"),  # over after an epoch, if that has 4 steps
        ("SOLVER.WARMUP_EPOCHS", "1"),  # over
    ],
)
def test_a_warm_up_goes_on_with_another_length_of_epochs(train, stop_after, monkeypatch, warmup):
    rates: dict[int, float] = {}
    before_step = Trainer.before_step

    def note_rate(trainer: Trainer) -> None:
        before_step(trainer)
        rates[trainer.iter] = trainer.optimizer.param_groups[0]["lr"]

    monkeypatch.setattr(Trainer, "before_step", note_rate)
    train("straight", *EVALUATED_ONCE, *warmup, "SOLVER.IMS_PER_BATCH", "4")
    expected = dict(rates)
    stop_after(2)
    with pytest.raises(SystemExit):
        train("cut", *EVALUATED_ONCE, *warmup)
    rates.clear()
    train("cut", *EVALUATED_ONCE, *warmup, "SOLVER.IMS_PER_BATCH", "4", flags=("--resume",))
    assert {step: rates[step] for step in range(4, 12)} == {step: expected[step] for step in range(4, 12)}


def test_a_toolbox_loader_goes_on_but_not_with_the_same_batches(toy_run, tmp_path, stop_after, capsys):
    class ToolboxTrainer(Trainer):
        @classmethod
        def build_train_loader(cls, cfg: CfgNode) -> DataLoader:
            items = super().build_train_loader(cfg).dataset.img_items
            transforms = build_transforms(cfg, is_train=True)
            return build_reid_train_loader(cfg, train_set=CommDataset(items, transforms), transforms=transforms)

    options = [*toy_run, "SOLVER.MAX_EPOCH", "2", "MODEL.MGRE.LOCATION.LOSS_WEIGHT", "0"]
    cfg = setup(default_argument_parser().parse_args(["--config-file", BASE, *options]))
    stop_after(2)
    trainer = ToolboxTrainer(cfg)
    trainer.resume_or_load()
    with pytest.raises(SystemExit):
        trainer.train()
    trainer = ToolboxTrainer(cfg)
    trainer.resume_or_load()
    trainer.train()
    output = capsys.readouterr().out
    assert "The training loader is not one of mgre.data" in output and "3 of 4 steps are done" in output
    assert load(tmp_path / "out" / "model_final.pth")["iteration"] == 4


def test_the_newest_checkpoint_is_kept_whatever_the_clock_says(tmp_path):
    checkpointer = TrainingCheckpointer(torch.nn.Linear(1, 1), str(tmp_path), num_kept=1)
    for name in ("model_0000", "model_0001", "model_0002"):
        checkpointer.save(name)
        assert [path.stem for path in tmp_path.glob("*.pth")] == [name]
    os.utime(tmp_path / "model_0002.pth", (4e9, 4e9))
    checkpointer.save("model_0003")
    assert (tmp_path / "model_0003.pth").exists()


def test_a_training_removes_what_a_killed_save_has_left(train, tmp_path):
    unfinished = tmp_path / "out" / ".model_0003.pth-0123abcd.tmp"
    unfinished.parent.mkdir()
    unfinished.write_bytes(b"half a checkpoint")
    train("out", "SOLVER.MAX_EPOCH", "1")
    assert not unfinished.exists()


def test_results_stay_while_nothing_replaces_them(train, tmp_path):
    metrics = train("out", "SOLVER.MAX_EPOCH", "1")
    (tmp_path / "own").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError):
        train("out", "SOLVER.MAX_EPOCH", "1", flags=("--resume",))
    assert json.loads((tmp_path / "out" / "results.json").read_text()).keys() == metrics.keys()


def test_another_length_of_epochs_goes_on_at_an_epochs_start(train, stop_after, capsys):
    stop_after(2)
    with pytest.raises(SystemExit):
        train("cut", *EVALUATED_ONCE)
    train("cut", *EVALUATED_ONCE, "SOLVER.IMS_PER_BATCH", "4", flags=("--resume",))
    output = capsys.readouterr().out
    assert "of epochs of 2 steps, this training's have 4" in output
    assert "4 of 12 steps are done (1 of 3 epochs)" in output


def test_a_forgotten_resume_is_told(train, capsys):
    train("one", *EVALUATED_ONCE)
    assert "checkpoints of an earlier training" not in capsys.readouterr().out
    train("one", *EVALUATED_ONCE)
    assert "add --resume; to keep it, choose another OUTPUT_DIR" in capsys.readouterr().out
    train("one", *EVALUATED_ONCE, flags=("--resume",))
    assert "checkpoints of an earlier training" not in capsys.readouterr().out


# -- Evaluations that fail ------------------------------------------------------------------------


def fail_in_evaluation(monkeypatch, number: int, error: BaseException) -> None:
    """Let the evaluation with that number, from 1, end with ``error``, once."""
    calls, test = [], Trainer.__dict__["test"]

    def failing(cls, cfg: CfgNode, model: torch.nn.Module, test_sets: dict | None = None) -> dict:
        calls.append(1)
        if len(calls) == number:
            monkeypatch.setattr(Trainer, "test", test)
            raise error
        return test.__func__(cls, cfg, model, test_sets)

    monkeypatch.setattr(Trainer, "test", classmethod(failing))


@pytest.mark.parametrize("error", [DataError("no query has a match"), RuntimeError("a bug"), KeyboardInterrupt()])
@pytest.mark.parametrize(("number", "period"), [(1, "1"), (2, "1"), (3, "1"), (1, "2")])
def test_a_failed_evaluation_loses_nothing(train, undisturbed, tmp_path, monkeypatch, error, number, period):
    """Where it fails by an error, by a bug, or because the process is ended in it."""
    options = ("TEST.EVAL_PERIOD", period, "SOLVER.CHECKPOINT_PERIOD", "60")
    metrics, straight = undisturbed(*options)
    fail_in_evaluation(monkeypatch, number, error)
    before = tmp_path / "cut" / "model_before_evaluation.pth"
    with pytest.raises(type(error)) as failed:
        train("cut", *options)
    if isinstance(error, DataError):
        assert str(failed.value) == (
            f"no query has a match; the state before this evaluation is in '{before}', and --resume begins with the "
            "evaluation"
        )
    assert load(before)["iteration"] == 2 * number * int(period)
    assert train("cut", *options, flags=("--resume",)) == metrics
    assert not before.exists()
    assert_same(straight, load(tmp_path / "cut" / "model_final.pth"))


def test_a_failed_last_evaluation_leaves_the_final_checkpoint(train, undisturbed, tmp_path, monkeypatch):
    """Where the period does not divide the number of epochs, the last evaluation comes after the training."""
    metrics, straight = undisturbed("TEST.EVAL_PERIOD", "2")
    fail_in_evaluation(monkeypatch, 2, DataError("no query has a match"))
    with pytest.raises(DataError, match=r"no query has a match$"):
        train("cut", "TEST.EVAL_PERIOD", "2")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert train("cut", "TEST.EVAL_PERIOD", "2", flags=("--resume",)) == metrics
    assert_same(straight, load(tmp_path / "cut" / "model_final.pth"))


def test_the_next_checkpoint_replaces_the_one_before_an_evaluation(train, tmp_path):
    train("out", "SOLVER.MAX_EPOCH", "2", "TEST.EVAL_PERIOD", "1", "SOLVER.CHECKPOINT_PERIOD", "2")
    assert {path.name for path in (tmp_path / "out").glob("*.pth")} == {"model_best.pth", "model_final.pth"}
    assert (tmp_path / "out" / "last_checkpoint").read_text() == "model_final.pth"
