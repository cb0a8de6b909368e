import logging

import pytest
import torch
from mgre.errors import WeightsError
from mgre.modeling.pretrained import load_matching
from mgre.system.weight_files import read_state_dict
from torch import nn

from tests.fixtures import logged_by


def small_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


@pytest.fixture
def pretrained_log(caplog):
    """What the module logs."""
    with logged_by("mgre.modeling.pretrained", caplog):
        yield caplog


def only_record(caplog) -> logging.LogRecord:
    """The one thing that the module has logged. A record is there twice if its logger also propagates."""
    (record,) = {r.getMessage(): r for r in caplog.records if r.name == "mgre.modeling.pretrained"}.values()
    return record


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
    record = only_record(pretrained_log)
    assert record.levelname == "WARNING"
    assert (
        "Loaded from imagenet.pth into Sequential, which is of another architecture, only 6 of 8 tensors: "
        "2 missing (0.bias, 2.weight), 2 left over (2.weight, fc.weight); what is missing starts at random: "
        "choose the file of this architecture"
    ) in record.message


def test_a_classifier_that_is_not_used_is_no_warning(pretrained_log):
    state = small_model().state_dict() | {"fc.weight": torch.zeros(1), "head.0.bias": torch.zeros(1)}
    load_matching(small_model(seed=1), state, source="imagenet.pth")
    record = only_record(pretrained_log)
    assert record.levelname == "INFO"
    assert "into Sequential 8 of 8 tensors: 0 missing, 2 left over (fc.weight, head.0.bias)" in record.message


def test_parts_that_the_module_does_not_build_are_a_warning(pretrained_log):
    state = nn.Sequential(nn.Sequential(*small_model(), nn.Conv2d(2, 2, 1))).state_dict()
    module = nn.Sequential(small_model(seed=1))
    load_matching(module, state, source="deeper.pth", find_keys=lambda: "MODEL.BACKBONE.DEPTH 101x")
    record = only_record(pretrained_log)
    assert record.levelname == "WARNING"
    assert (
        "only 8 of 8 tensors: 0 missing, 2 left over (0.3.weight, 0.3.bias); set MODEL.BACKBONE.DEPTH 101x, which "
        in (record.message)
    )


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
