"""What resuming does with checkpoints and notes that are whole files, and still not what they should be."""

from types import SimpleNamespace

import pytest
import torch
from fastreid.config import get_cfg
from fastreid.engine import default_argument_parser
from mgre.commands.main import main
from mgre.engine.checkpointing import CheckpointHook, TrainingCheckpointer
from mgre.engine.run import launch
from mgre.errors import WeightsError
from torch import nn


@pytest.fixture
def checkpointer(tmp_path) -> TrainingCheckpointer:
    return TrainingCheckpointer(nn.Linear(2, 1), str(tmp_path))


@pytest.mark.parametrize(
    ("progress", "message"),
    [
        ({"epoch": "two"}, "'epoch' is no whole number"),
        ({"iteration": 2.5}, "'iteration' is no whole number"),
        ({"iters_per_epoch": [2]}, "'iters_per_epoch' is no whole number"),
        ({"sampler_seed": None}, "'sampler_seed' is no whole number"),
    ],
)
def test_a_progress_that_is_none_is_not_resumed(checkpointer, tmp_path, progress, message):
    checkpointer.save("model_0000", **{"epoch": 0, "iteration": 2} | progress)
    with pytest.raises(WeightsError, match=message) as caught:
        checkpointer.resume_or_load("")
    assert f"checkpoint '{tmp_path}/model_0000.pth' is not of this training" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("note", [b"\xff\xfe\x00", b"", b"model_9999.pth", b"../elsewhere.pth"])
def test_a_note_that_names_no_checkpoint_is_passed_over(checkpointer, tmp_path, note):
    for number in range(2):
        nn.init.constant_(checkpointer.model.weight, number)
        checkpointer.save(f"model_000{number}", epoch=number)
    (tmp_path / "last_checkpoint").write_bytes(note)
    nn.init.constant_(checkpointer.model.weight, 7)
    assert checkpointer.resume_or_load("")["epoch"] == 1
    assert checkpointer.model.weight.tolist() == [[1, 1]]
    assert checkpointer.resumed_from == str(tmp_path / "model_0001.pth")


def before_train(checkpointer: TrainingCheckpointer, resumed: dict) -> None:
    """What the hook does with the progress of a resumed checkpoint."""
    checkpointer.resumed, checkpointer.resumed_from = resumed, "out/model_0003.pth"
    hook = CheckpointHook(checkpointer, 1)
    hook.trainer = SimpleNamespace(max_epoch=4, storage=None, cfg=get_cfg())
    hook.before_train()


@pytest.mark.parametrize("states", [[{}], [3], [{"python": "x", "numpy": 1, "torch": torch.zeros(3)}]])
def test_random_states_that_are_none_are_refused(checkpointer, states):
    with pytest.raises(WeightsError, match=r"checkpoint 'out/model_0003\.pth' has no random states: "):
        before_train(checkpointer, {"random_states": states})


def test_random_states_of_another_number_of_processes_are_left_alone(checkpointer, caplog):
    before = torch.get_rng_state()
    before_train(checkpointer, {"random_states": [{}, {}]})
    assert torch.equal(torch.get_rng_state(), before)
    assert "The checkpoint is of 2 processes, this training has 1" in caplog.text


def test_more_processes_than_gpus_are_refused(tiny_run, monkeypatch, capsys):
    """On a machine with one GPU, which the check of the device finds."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    options = ["--config-file", "configs/MGRe/Base-MGRe.yml", "--num-gpus", "3", *tiny_run, "MODEL.DEVICE", "cuda"]
    args = default_argument_parser().parse_args(options)
    assert main(lambda: launch(lambda args: None, args)) == 1
    assert capsys.readouterr().err.strip().endswith("error: --num-gpus 3, but there are 1 CUDA devices here")
