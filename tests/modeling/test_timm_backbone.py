import pytest
import timm
import torch
from mgre.errors import ConfigError, WeightsError
from mgre.modeling.timm_backbone import TimmBackbone

IMAGES = torch.randn(1, 3, 64, 32, generator=torch.Generator().manual_seed(0))


def test_maps_are_timms_last_four_features():
    backbone = TimmBackbone(name="resnet18", last_stride=2).eval()
    peer = timm.create_model("resnet18").eval()
    peer.load_state_dict(backbone.body.state_dict(), strict=False)
    maps = backbone.maps(IMAGES)
    assert backbone.channels == {"stage1": 64, "stage2": 128, "stage3": 256, "stage4": 512}
    assert [tuple(m.shape[-2:]) for m in maps.values()] == [(16, 8), (8, 4), (4, 2), (2, 1)]
    torch.testing.assert_close(backbone(IMAGES), peer.forward_features(IMAGES))


def test_last_stride_1_keeps_the_last_map_at_a_sixteenth():
    maps = TimmBackbone(name="convnext_atto", last_stride=1).eval().maps(IMAGES)
    assert maps["stage4"].shape[-2:] == (4, 2)


def test_unknown_name_is_an_error_with_near_ones():
    with pytest.raises(ConfigError, match="resnet1O1"):
        TimmBackbone(name="resnet1O1")


def test_a_model_without_feature_maps_is_refused_by_name():
    with pytest.raises(ConfigError, match="mixer_s32_224"):
        TimmBackbone(name="mixer_s32_224", last_stride=1)


@pytest.mark.parametrize("name", ["mambaout_femto", "swin_tiny_patch4_window7_224"])
def test_maps_in_another_layout_are_refused_by_name(name):
    with pytest.raises(ConfigError, match=f"'{name}'"):
        TimmBackbone(name=name, last_stride=2)


def test_weights_from_a_file(tmp_path):
    peer = timm.create_model("convnext_atto").eval()
    torch.save({"state_dict": peer.state_dict()}, tmp_path / "weights.pth")
    backbone = TimmBackbone(
        name="convnext_atto", pretrained=True, weights=str(tmp_path / "weights.pth"), last_stride=2
    ).eval()
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(backbone(images), peer.stages(peer.stem(images)))


@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
@pytest.mark.parametrize("wrap", [lambda state: {"teacher": state}, lambda state: {"net": {"state_dict": state}}])
def test_weights_in_any_wrapping_and_half_precision(tmp_path, prefix, wrap):
    state = timm.create_model("resnet18").state_dict()
    half = {prefix + n: v.half() if v.is_floating_point() else v for n, v in state.items()}
    torch.save(wrap(half), tmp_path / "weights.pth")
    body = TimmBackbone(name="resnet18", pretrained=True, weights=str(tmp_path / "weights.pth"), last_stride=2).body
    for name, value in body.state_dict().items():
        assert torch.equal(value, half[prefix + name].to(value.dtype)), name


@pytest.mark.parametrize(("saved", "name"), [("resnet18", "resnet34"), ("resnet34", "resnet18")])
def test_weights_of_another_depth_are_refused(tmp_path, saved, name):
    """timm itself loads what fits."""
    torch.save(timm.create_model(saved).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(
        WeightsError, match=r"not in both, first layer1.2.conv1.weight\); set MODEL.TIMM.NAME to the model"
    ):
        TimmBackbone(name=name, pretrained=True, weights=str(tmp_path / "weights.pth"), last_stride=2)


def test_weights_of_another_model_are_refused(tmp_path):
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="does not fit timm's 'convnext_atto'"):
        TimmBackbone(name="convnext_atto", pretrained=True, weights=str(tmp_path / "weights.pth"))


def test_published_weights_that_cannot_be_had(monkeypatch):
    create = timm.create_model

    def offline(name: str, pretrained: bool = False, **options: object) -> torch.nn.Module:
        if pretrained:
            raise OSError("no network")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsError, match=r"timm's 'resnet18' cannot be downloaded \(no network\); .*PRETRAIN_PATH"):
        TimmBackbone(name="resnet18", pretrained=True, last_stride=2)
