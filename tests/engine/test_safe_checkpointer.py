import fractions
import os
import re

import pytest
import torch
from mgre.engine.safe_checkpointer import SafeCheckpointer
from mgre.errors import WeightsError
from torch import nn


def small_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def assert_same_state(model: nn.Module, expected: nn.Module):
    for name, value in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    return optimizer


@pytest.fixture
def saved(tmp_path):
    """A model, and the folder it was saved in as model_0.pth with an optimizer and a schedule."""
    model = small_model()
    optimizer = optimizer_of(model)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 3])
    SafeCheckpointer(model, str(tmp_path), optimizer=optimizer, lr_sched=schedule).save("model_0", epoch=4, metric=0.5)
    return model, tmp_path


def test_saved_and_resumed(saved):
    model, folder = saved
    resumed = small_model(seed=1)
    optimizer = optimizer_of(resumed)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [7])
    checkpointer = SafeCheckpointer(resumed, str(folder), optimizer=optimizer, lr_sched=schedule)
    extra = checkpointer.resume_or_load("", resume=True)
    assert extra == {"epoch": 4, "metric": 0.5}
    assert_same_state(resumed, model)
    assert sorted(schedule.milestones) == [2, 3]
    assert optimizer.state[resumed[0].weight]["step"] == 1
    assert sorted(os.listdir(folder)) == ["last_checkpoint", "model_0.pth"]


@pytest.mark.parametrize("error", [RuntimeError("no space left"), KeyboardInterrupt()])
def test_interrupted_save_leaves_the_former_files(monkeypatch, saved, error):
    folder = saved[1]
    before = {name: (folder / name).read_bytes() for name in os.listdir(folder)}

    def interrupted(content, file):
        file.write(b"half a checkpoint")
        raise error

    monkeypatch.setattr(torch, "save", interrupted)
    for name in ("model_0", "model_1"):
        with pytest.raises(type(error)):
            SafeCheckpointer(small_model(seed=1), str(folder)).save(name)
    assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == before


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
def test_cut_checkpoint(saved, kept):
    path = saved[1] / "model_0.pth"
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(WeightsError, match=re.escape(str(path)) + ".* is damaged or cut short") as error:
        SafeCheckpointer(small_model(), str(saved[1])).resume_or_load("", resume=True)
    assert "\n" not in str(error.value)


def test_checkpoint_that_is_no_checkpoint(tmp_path):
    path = tmp_path / "notes.pth"
    path.write_text("these are not weights")
    with pytest.raises(WeightsError, match=r"notes.pth.* is damaged"):
        SafeCheckpointer(small_model()).load(str(path))


def test_missing_checkpoint(tmp_path):
    with pytest.raises(WeightsError, match=r"nowhere.pth' does not exist"):
        SafeCheckpointer(small_model()).load(str(tmp_path / "nowhere.pth"))


def test_no_checkpoint_asked_for():
    assert SafeCheckpointer(small_model()).load("") == {}


def test_checkpoint_with_code_is_refused(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"model": small_model().state_dict(), "args": fractions.Fraction(1)}, path)
    with pytest.raises(WeightsError, match="Python objects besides tensors"):
        SafeCheckpointer(small_model()).load(str(path))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {f"module.{k}": v for k, v in state.items()}},
    ],
)
def test_any_wrapping_loads(tmp_path, wrap):
    torch.save(wrap(small_model().state_dict()), tmp_path / "model.pth")
    model = small_model(seed=1)
    SafeCheckpointer(model).load(str(tmp_path / "model.pth"))
    assert_same_state(model, small_model())


def test_checkpoint_of_another_architecture(saved):
    other = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1))
    with pytest.raises(WeightsError, match=r"another architecture: 4 of the model's 4"):
        SafeCheckpointer(other).load(str(saved[1] / "model_0.pth"))


def test_checkpoint_of_another_number_of_identities_loads(saved):
    model, folder = saved
    other = small_model(seed=1)
    other[2] = nn.Linear(3, 9)
    SafeCheckpointer(other).load(str(folder / "model_0.pth"))
    assert torch.equal(other[0].weight, model[0].weight)
    assert other[2].weight.shape == (9, 3)
