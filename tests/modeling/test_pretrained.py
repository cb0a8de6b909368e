import logging

import pytest
import torch
from mgre.errors import WeightsError
from mgre.modeling.pretrained import load_matching
from mgre.system.weight_files import read_state_dict
from torch import nn


def small_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


@pytest.fixture
def pretrained_log(caplog):
    """What the module logs, also where another test has set up loggers that do not propagate."""
    logger = logging.getLogger("mgre.modeling.pretrained")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)
    logger.setLevel(level)


@pytest.mark.parametrize("wrappers", [(), ("model",), ("state_dict",), ("model_state",), ("state_dict", "model")])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.encoder_q."])
def test_any_wrapping_and_prefix(tmp_path, wrappers, prefix):
    expected = small_model().state_dict()
    content = {prefix + k: v for k, v in expected.items()}
    for wrapper in wrappers:
        content = {wrapper: content, "epoch": 3}
    torch.save(content, tmp_path / "weights.pth")
    model = small_model(seed=1)
    load_matching(model, read_state_dict(str(tmp_path / "weights.pth")), source="weights.pth")
    assert all(torch.equal(v, expected[k]) for k, v in model.state_dict().items())


def test_the_prefix_under_which_most_fit():
    # Of a whole model's file, the backbone's part: a head with the same inner names comes first.
    expected = small_model().state_dict()
    state = {"heads.0.weight": torch.zeros(4, 3, 1, 1)} | {f"backbone.{k}": v for k, v in expected.items()}
    model = small_model(seed=1)
    load_matching(model, state, source="whole.pth")
    assert torch.equal(model[0].weight, expected["0.weight"])


def test_loaded_missing_and_left_over_are_logged(pretrained_log):
    state = small_model().state_dict()
    del state["1.num_batches_tracked"], state["0.bias"]
    state |= {"2.weight": torch.zeros(5, 4, 1, 1), "fc.weight": torch.zeros(1)}
    model = small_model(seed=1)
    former = model[2].weight.clone()
    load_matching(model, state, source="imagenet.pth")
    assert torch.equal(model[2].weight, former)
    assert (
        "Loaded 6 of 8 parameters and statistics of Sequential from imagenet.pth: "
        "2 missing (0.bias, 2.weight), 2 left over (2.weight, fc.weight)"
    ) in pretrained_log.text


@pytest.mark.parametrize(("num_left", "fits"), [(4, True), (3, False)])
def test_fewer_than_half_do_not_fit(num_left, fits):
    names = [n for n in small_model().state_dict() if not n.endswith("num_batches_tracked")]
    state = {n: small_model().state_dict()[n] for n in names[:num_left]}
    model = small_model(seed=1)
    former = model[0].weight.clone()
    if fits:
        load_matching(model, state, source="half.pth")
        assert torch.equal(model[0].weight, small_model()[0].weight)
    else:
        with pytest.raises(WeightsError, match=r"half.pth' does not fit Sequential: 5 of its 8 tensors"):
            load_matching(model, state, source="half.pth")
        assert torch.equal(model[0].weight, former)


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.zeros(1)], {"model": {"args": 1}}])
def test_files_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"other.pth' holds no state dict"):
        read_state_dict(str(tmp_path / "other.pth"))


def test_missing_file(tmp_path):
    with pytest.raises(WeightsError, match=r"nowhere.pth' does not exist"):
        read_state_dict(str(tmp_path / "nowhere.pth"))
