import copy

import pytest
import torch
from fastreid.modeling.backbones.build import BACKBONE_REGISTRY
from mgre.config import load_config
from mgre.errors import ConfigError
from mgre.modeling.backbone import MGReBackbone, StagedBackbone, build_mgre_backbone


def config(**overrides: str):
    base = {"MODEL.DEVICE": "cpu", "MODEL.BACKBONE.PRETRAIN": "False", "MODEL.BACKBONE.DEPTH": "18x"}
    return load_config("configs/MGRe/Base-MGRe.yml", [w for pair in (base | overrides).items() for w in pair])


def test_maps_are_the_outputs_of_the_four_residual_blocks():
    resnet = BACKBONE_REGISTRY.get("build_resnet_backbone")(config()).eval()
    images = torch.randn(2, 3, 64, 32)
    x = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(images))))
    expected = {}
    for i in range(1, 5):
        x = getattr(resnet, f"layer{i}")(x)
        expected[f"stage{i}"] = x
    staged = StagedBackbone(bottom_up=resnet, name="resnet").eval()
    maps = staged.maps(images)
    assert list(maps) == list(expected)
    assert all(torch.equal(maps[s], expected[s]) for s in maps)
    assert staged.channels == {"stage1": 64, "stage2": 128, "stage3": 256, "stage4": 512}
    assert maps["stage3"].shape[-2:] == maps["stage4"].shape[-2:]  # last stride 1


def test_last_map_includes_the_non_local_block():
    resnet = BACKBONE_REGISTRY.get("build_resnet_backbone")(
        config(**{"MODEL.BACKBONE.DEPTH": "50x", "MODEL.BACKBONE.WITH_NL": "True"})
    ).eval()
    for non_local in (*resnet.NL_2, *resnet.NL_3):  # they start as the identity
        torch.nn.init.constant_(non_local.W[1].weight, 1.0)
    staged = StagedBackbone(bottom_up=resnet, name="resnet").eval()
    maps = staged.maps(torch.randn(1, 3, 64, 32))
    after = torch.equal(resnet.layer4(maps["stage3"]), maps["stage4"])
    assert after, "stage 4 must continue from the stage 3 that is handed out"


@pytest.mark.parametrize(
    ("name", "depth", "options"),
    [
        ("build_resnet_backbone", "18x", {"MODEL.BACKBONE.WITH_IBN": "False"}),
        ("build_resnet_backbone", "50x", {"MODEL.BACKBONE.WITH_NL": "True", "MODEL.BACKBONE.WITH_SE": "True"}),
        ("build_resnext_backbone", "50x", {}),
        ("build_resnest_backbone", "50x", {}),
        ("build_regnet_backbone", "400y", {}),
        ("build_osnet_backbone", "x1_0", {}),
    ],
)
def test_channels_are_those_of_maps_and_nothing_else_changes(name, depth, options):
    """The channels are found without computing anything; here against real maps."""
    options = {"MODEL.BACKBONE.WITH_IBN": "True"} | options
    bottom_up = BACKBONE_REGISTRY.get(name)(config(**{"MODEL.BACKBONE.DEPTH": depth}, **options))
    before = {key: (value, value.clone()) for key, value in bottom_up.state_dict().items()}
    random_state = torch.get_rng_state()
    staged = StagedBackbone(bottom_up=bottom_up, name=name)
    assert staged.training and staged._maps == {}
    assert torch.equal(torch.get_rng_state(), random_state)
    for key, value in bottom_up.state_dict().items():
        assert value.data_ptr() == before[key][0].data_ptr() and torch.equal(value, before[key][1])
    maps = staged.eval().maps(torch.zeros(1, 3, 64, 64))
    assert staged.channels == {stage: value.shape[1] for stage, value in maps.items()}


def test_channels_of_a_backbone_that_cannot_do_without_numbers():
    class Shifted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = BACKBONE_REGISTRY.get("build_resnet_backbone")(config())
            for i in range(1, 5):
                setattr(self, f"layer{i}", getattr(self.inner, f"layer{i}"))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.inner(images + images.mean().item())

    staged = StagedBackbone(bottom_up=Shifted(), name="shifted").eval()
    assert staged.channels == {"stage1": 64, "stage2": 128, "stage3": 256, "stage4": 512}
    assert staged._maps == {}
    assert staged.maps(torch.zeros(1, 3, 64, 32))["stage4"].shape[1] == 512


def test_a_copy_keeps_its_own_maps():
    staged = StagedBackbone(bottom_up=BACKBONE_REGISTRY.get("build_resnet_backbone")(config()), name="resnet").eval()
    twin = copy.deepcopy(staged)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.1)
    images = torch.randn(1, 3, 64, 32)
    assert not torch.equal(staged.maps(images)["stage4"], twin.maps(images)["stage4"])
    assert staged._maps == {} and twin._maps == {}


@pytest.mark.parametrize(
    ("stages", "guided"), [("(1, 2, 3)", {"stage1", "stage2"}), ("(2,)", {"stage2"}), ("(3,)", set()), ("()", set())]
)
def test_guidance_only_where_a_stage_uses_it(stages, guided):
    backbone = build_mgre_backbone(config(**{"MODEL.MGRE.STAGES": stages}))
    assert isinstance(backbone, MGReBackbone)
    assert set(backbone.guidance.project if backbone.guidance else ()) == guided
    off = build_mgre_backbone(config(**{"MODEL.MGRE.STAGES": stages, "MODEL.MGRE.GUIDANCE": "False"}))
    assert off.guidance is None


def with_extra_bn(value: str) -> MGReBackbone:
    torch.manual_seed(3)
    return build_mgre_backbone(config(**{"MODEL.MGRE.EXTRA_BN": value}))


def test_without_the_extra_batch_norm_nothing_changes():
    """The golden values of test_golden.py are older than the key."""
    images = torch.randn(2, 3, 64, 32)
    off, on = with_extra_bn("False").eval(), with_extra_bn("True").eval()
    assert {n for n in on.state_dict() if n not in off.state_dict()} == {
        f"extra_bn.{n}" for n in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    assert all(torch.equal(value, on.state_dict()[name]) for name, value in off.state_dict().items())
    maps = off(images)
    expected = off.guidance(off.staged.maps(images))
    assert all(torch.equal(maps[stage], expected[stage]) for stage in maps)


@pytest.mark.parametrize("training", [True, False])
def test_the_extra_batch_norm_is_before_guidance_and_stage_4(training):
    images = torch.randn(3, 3, 64, 32)
    backbone = with_extra_bn("True").double().train(training)
    norm = backbone.extra_bn
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        tensor.uniform_(0.5, 2)
    c = backbone.staged.maps(images.double())
    # By hand: over images, rows and columns of each channel, with the biased variance, or with the statistics kept.
    mean, variance = norm.running_mean.clone(), norm.running_var.clone()
    if training:
        mean = c["stage4"].sum(dim=(0, 2, 3)) / c["stage4"][:, 0].numel()
        variance = ((c["stage4"] - mean[:, None, None]) ** 2).sum(dim=(0, 2, 3)) / c["stage4"][:, 0].numel()
    scale = norm.weight / (variance + 1e-5).sqrt()
    c4 = (c["stage4"] - mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]
    found = backbone(images.double())
    torch.testing.assert_close(found["stage4"], c4, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found["stage3"], c["stage3"], rtol=0, atol=0)
    kernel = backbone.guidance.project["stage2"].weight[:, :, 0, 0]
    large = torch.nn.functional.interpolate(c4, size=found["stage2"].shape[-2:], mode="bilinear", align_corners=False)
    guided = c["stage2"] + torch.einsum("oc,bchw->bohw", kernel, large)
    torch.testing.assert_close(found["stage2"], guided, rtol=1e-9, atol=1e-9)


def test_a_backbone_of_more_stages_is_refused_by_name():
    with pytest.raises(ConfigError, match="'build_effnet_backbone' has more than four stages"):
        build_mgre_backbone(config(**{"MODEL.MGRE.BACKBONE": "build_effnet_backbone", "MODEL.BACKBONE.DEPTH": "b0"}))


@pytest.mark.parametrize("name", ["build_mobilenetv2_backbone", "build_vit_backbone"])
def test_a_backbone_without_four_stages_is_refused_by_name(name):
    with pytest.raises(ConfigError, match=f"'{name}' has no four stages"):
        build_mgre_backbone(
            config(**{"MODEL.MGRE.BACKBONE": name, "MODEL.BACKBONE.DEPTH": "base" if "vit" in name else "1.0x"})
        )


class Flat(torch.nn.Module):
    """Maps of one image for all stages, which have ``sizes`` channels, and says they have ``channels``."""

    def __init__(self, channels: object, sizes: dict[str, int]) -> None:
        super().__init__()
        self.channels = channels
        self.sizes = sizes

    def maps(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {stage: images.mean(dim=1, keepdim=True).expand(-1, size, -1, -1) for stage, size in self.sizes.items()}


SIZES = {"stage1": 4, "stage2": 6, "stage3": 8, "stage4": 10}


def test_a_backbone_with_maps_and_channels_joins(monkeypatch):
    flat = Flat(SIZES, SIZES).train()
    monkeypatch.setitem(BACKBONE_REGISTRY._obj_map, "build_flat", lambda cfg: flat)
    backbone = build_mgre_backbone(config(**{"MODEL.MGRE.BACKBONE": "build_flat"}))
    assert backbone.channels == SIZES and backbone.staged is flat and flat.training
    maps = backbone(torch.rand(2, 3, 8, 4))
    assert {stage: tuple(value.shape) for stage, value in maps.items()} == {s: (2, c, 8, 4) for s, c in SIZES.items()}


@pytest.mark.parametrize(
    ("channels", "sizes", "message"),
    [
        (None, SIZES, "'build_flat' has maps.., but its channels are None; allowed: a dict"),
        ({"stage4": 10}, SIZES, "its channels are {'stage4': 10}; allowed: .* of stage1, stage2, stage3, stage4"),
        (SIZES, SIZES | {"stage2": 5}, r"announces channels {.*}, but its maps.. gives {.*'stage2': \(1, 5, 64, 64\)"),
        (SIZES, {"stage1": 4}, r"gives {'stage1': \(1, 4, 64, 64\)} for one image"),
    ],
)
def test_maps_that_are_not_those_announced_are_refused(monkeypatch, channels, sizes, message):
    monkeypatch.setitem(BACKBONE_REGISTRY._obj_map, "build_flat", lambda cfg: Flat(channels, sizes))
    with pytest.raises(ConfigError, match=message):
        build_mgre_backbone(config(**{"MODEL.MGRE.BACKBONE": "build_flat"}))
