from dataclasses import replace

import numpy as np
import pytest
import torch
from fastreid.modeling import build_model
from mgre.engine.training_record import make_record
from mgre.errors import ConfigError
from mgre.export.network import ExportedNetwork, check_size
from mgre.export.onnx_file import capture
from mgre.inference.flavours import FLAVOURS
from mgre.modeling.mgre import _prior_boxes


@pytest.fixture
def make(small_config):
    def made(flavour, config="Base-MGRe", normalize=False, regions=False, **overrides):
        cfg = small_config(config, **overrides)
        torch.manual_seed(0)
        model = build_model(cfg).eval()
        options = {"normalize": normalize, "regions": regions}
        return model, ExportedNetwork(model, make_record(cfg, {}), FLAVOURS[flavour], **options)

    return made


STATISTICS = {"MODEL.PIXEL_MEAN": "[89.9, 79.2, 80.1]", "MODEL.PIXEL_STD": "[63.9, 64.3, 63.8]"}


@pytest.mark.parametrize("overrides", [{}, STATISTICS])
@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("config", ["Base-MGRe", "quickstart-baseline"])
def test_each_flavour_gives_the_models_features(make, flavour, config, overrides):
    model, network = make(flavour, config, **overrides)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 32), dtype=np.uint8)
    with torch.no_grad():
        expected = model({"images": torch.from_numpy(pixels).float()})
        (found,) = network(torch.from_numpy(FLAVOURS[flavour].feed(pixels)))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
        # The network is left as it was.
        torch.testing.assert_close(model({"images": torch.from_numpy(pixels).float()}), expected)


@pytest.mark.parametrize(
    ("flavour", "value"),
    [("imagenet", (110 / 255 - 0.485) / 0.229), ("unit-rgb", 110 / 255), ("raw-rgb", 110.0), ("raw-bgr", 130.0)],
)
def test_what_a_runtime_feeds(flavour, value):
    pixels = np.array([110, 120, 130], dtype=np.uint8).reshape(1, 3, 1, 1)
    assert FLAVOURS[flavour].feed(pixels)[0, 0, 0, 0] == pytest.approx(value)


def test_features_of_length_one(make):
    model, network = make("raw-rgb", "quickstart-baseline", normalize=True)
    images = torch.rand(2, 3, 64, 32) * 255
    with torch.no_grad():
        (found,) = network(images)
        expected = model({"images": images})
    torch.testing.assert_close(found, expected / expected.norm(dim=1, keepdim=True))


def test_boxes_of_key_points_cannot_be_exported(make):
    with pytest.raises(ConfigError, match=r"MODEL\.MGRE.BOXES keypoints"):
        make("raw-rgb", **{"MODEL.MGRE.BOXES": "keypoints"})


def test_regions_need_an_mgre(make):
    with pytest.raises(ConfigError, match="--regions needs an MGRe with regions, this is a Baseline"):
        make("raw-rgb", "quickstart-baseline", regions=True)


@pytest.mark.parametrize("size", [(64, 32), (32, 16), (16, 8)])
def test_a_size_at_which_a_region_has_no_sample(small_config, build_small, size):
    """The head is 8 x 8 of the 64 x 32 cells that stage 1 has at 256 x 128, so 1 x 1 at 32 x 16."""
    record = replace(make_record(small_config(), {}), input_size=size)
    if size >= (32, 16):
        check_size(build_small().eval(), record)
    else:
        model = build_small(**{"MODEL.BACKBONE.WITH_IBN": "False"}).eval()  # instance norm needs two cells
        with pytest.raises(ConfigError, match="--size 16 8 leaves stage1 a map of 4 x 2 cells, where region head"):
            check_size(model, record)


def test_a_backbone_that_cannot_be_captured_is_named(make, monkeypatch):
    model, network = make("raw-rgb", "quickstart-baseline")
    forward = model.backbone.forward
    monkeypatch.setattr(model.backbone, "forward", lambda x: forward(x) if x.sum().item() > 0 else forward(-x))
    with pytest.raises(ConfigError, match=r"backbone ResNet cannot be exported \(.+\)") as caught:
        capture(network, (64, 32))
    assert "\n" not in str(caught.value)


def test_prior_boxes_are_not_left_in_the_graph(make):
    """They are made once for each device, and a capture must not be that once."""
    _prior_boxes.cache_clear()
    model, network = make("raw-rgb", **{"MODEL.MGRE.BOXES": "prior", "MODEL.MGRE.STAGES": "(3,)"})
    capture(network, (64, 32))
    with torch.no_grad():
        features = model({"images": torch.rand(1, 3, 64, 32)}).numpy()
    assert np.isfinite(features).all()
