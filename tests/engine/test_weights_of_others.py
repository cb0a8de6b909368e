"""Weight files as other codes write them, as PRETRAIN_PATH and MODEL.WEIGHTS: each gives what the clean form does."""

import argparse
import logging
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision
from fastreid.config import CfgNode
from fastreid.modeling import build_model
from fastreid.modeling.backbones import build_backbone
from fastreid.modeling.backbones.vision_transformer import VisionTransformer
from mgre.engine.load_model import load_model
from mgre.engine.safe_checkpointer import SafeCheckpointer
from mgre.errors import WeightsError
from torch import nn

pytestmark = pytest.mark.usefixtures("quick_random_weights")

State = dict[str, torch.Tensor]
IMAGES = torch.rand(2, 3, 64, 32, generator=torch.Generator().manual_seed(0)) * 255


@pytest.fixture
def baseline(small_config: Callable[..., CfgNode]) -> Callable[..., CfgNode]:
    """The config of the toolbox's Baseline with a ResNet-18 without IBN, and overrides of the last parts of keys."""

    def load(**overrides: object) -> CfgNode:
        sections = {"EMBEDDING_DIM": "HEADS", "NUM_CLASSES": "HEADS", "WEIGHTS": "", "PIXEL_MEAN": ""}
        keys = {f"MODEL.{sections.get(k, 'BACKBONE')}.{k}".replace("..", "."): str(v) for k, v in overrides.items()}
        plain = {
            "MODEL.META_ARCHITECTURE": "Baseline",
            "MODEL.BACKBONE.NAME": "build_resnet_backbone",
            "MODEL.BACKBONE.FEAT_DIM": "512",
            "MODEL.BACKBONE.WITH_IBN": "False",
            "MODEL.HEADS.NAME": "EmbeddingHead",
        }
        return small_config(**plain | keys)

    return load


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Callable[[], list[logging.LogRecord]]:
    """What the package has warned of, each once."""
    logger = logging.getLogger("mgre")
    logger.addHandler(caplog.handler)
    yield lambda: list({r.getMessage(): r for r in caplog.records if r.levelno >= logging.WARNING}.values())
    logger.removeHandler(caplog.handler)


def trained(cfg: CfgNode, seed: int = 7) -> State:
    """The state of a model whose statistics of the norms are not those at the start."""
    torch.manual_seed(seed)
    model = build_model(cfg)
    model.train()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.1, 0.1)
            part.running_var.uniform_(0.5, 2)
    return model.state_dict()


def backbone_of(state: State) -> State:
    return {n.removeprefix("backbone."): v for n, v in state.items() if n.startswith("backbone.")}


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


FORMS = {
    "DINO's": lambda state: {
        "student": prefixed("module.", {n: torch.zeros_like(v) for n, v in state.items()}),
        "teacher": prefixed("module.", state) | {"module.head.mlp.0.weight": torch.zeros(8, 8)},
        "args": argparse.Namespace(arch="resnet18"),
    },
    "an encoder's": lambda state: {"encoder": state, "epoch": 3},
    "a net's": lambda state: {"net": prefixed("module.", state), "acc": 0.9},
    "module in state_dict": lambda state: {"module": {"state_dict": state}},
    "the running average's": lambda state: {"model_ema": state, "optimizer": {"param_groups": [{"lr": 0.1}]}},
    "MoCo's": lambda state: {"state_dict": prefixed("module.encoder_q.", state) | {"module.queue": torch.zeros(4, 4)}},
}


def save(form: Callable[[State], dict], state: State, path: Path) -> str:
    torch.save(form(state), path)
    return str(path)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_any_form_as_pretrain_path(baseline, tmp_path, form):
    expected = backbone_of(trained(baseline()))
    path = save(form, prefixed("backbone.", expected), tmp_path / "w.pth")
    backbone = build_backbone(baseline(PRETRAIN=True, PRETRAIN_PATH=path))
    assert all(torch.equal(backbone.state_dict()[name], value) for name, value in expected.items())


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_any_form_as_weights_of_a_training(baseline, tmp_path, form):
    expected = trained(baseline())
    model = build_model(baseline())
    SafeCheckpointer(model, cfg=baseline()).load(save(form, expected, tmp_path / "w.pth"), checkpointables=[])
    assert all(torch.equal(model.state_dict()[name], value) for name, value in expected.items())


def features(cfg: CfgNode, state: State, path: Path) -> torch.Tensor:
    """Of :data:`IMAGES`, by the model with the clean form of ``state``."""
    torch.save({"model": state}, path)
    return features_of(cfg, str(path))


@torch.no_grad()
def features_of(cfg: CfgNode, path: str) -> torch.Tensor:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = path
    return load_model(cfg).eval()({"images": IMAGES})


def test_any_kind_of_file_as_weights_of_an_evaluation(baseline, tmp_path):
    cfg = baseline()
    state = trained(cfg)
    clean = features(cfg, state, tmp_path / "clean.pth")
    contiguous = {name: value.contiguous() for name, value in state.items()}  # safetensors knows no other layout
    safetensors.torch.save_file(prefixed("module.", contiguous), tmp_path / "w.safetensors")
    torch.save({"net": state}, tmp_path / "old.pth.tar", _use_new_zipfile_serialization=False)
    for name in ("w.safetensors", "old.pth.tar"):
        assert torch.equal(features_of(cfg, str(tmp_path / name)), clean)
    # Half precision gives what its rounded numbers give in single precision.
    half = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    rounded = {name: value.float() if value.is_floating_point() else value for name, value in half.items()}
    torch.save({"model": half}, tmp_path / "half.pth")
    found = features_of(cfg, str(tmp_path / "half.pth"))
    assert found.dtype == torch.float32
    assert torch.equal(found, features(cfg, rounded, tmp_path / "rounded.pth"))


def zoo_of_2020(state: State) -> State:
    """The names of the heads in the toolbox's versions 0.1 (its model zoo), with the statistics of the pixels."""
    last = max(name.split(".")[2] for name in state if name.startswith("heads.bottleneck."))
    old = {name.replace(f"heads.bottleneck.{last}.", "heads.bnneck."): value for name, value in state.items()}
    old["heads.classifier.weight"] = torch.rand(751, old.pop("heads.weight").shape[1])
    old["pixel_mean"] = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)
    return old | {"pixel_std": torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1)}


def version_1(state: State) -> State:
    """Those of 1.0 and 1.1, from several GPUs."""
    old = dict(state)
    old["heads.classifier.weight"] = old.pop("heads.weight")
    return prefixed("module.", old)


@pytest.mark.parametrize("names", [zoo_of_2020, version_1])
@pytest.mark.parametrize("embedding_dim", [0, 8])
def test_old_names_of_the_toolbox_give_the_same_features(baseline, tmp_path, log, names, embedding_dim):
    cfg = baseline(EMBEDDING_DIM=embedding_dim)
    state = trained(cfg)
    clean = features(cfg, state, tmp_path / "now.pth")
    torch.save({"model": names(state)}, tmp_path / "old.pth")
    assert torch.equal(features_of(cfg, str(tmp_path / "old.pth")), clean)
    model = build_model(cfg)
    SafeCheckpointer(model, cfg=cfg).load(str(tmp_path / "old.pth"), checkpointables=[])
    for name, value in state.items():
        if name != "heads.weight" or names is version_1:
            assert torch.equal(model.state_dict()[name], value), name
    assert not log()


def test_a_head_with_two_norms_is_another_architecture(baseline, tmp_path):
    """Version 0.1's ReductionHead has a norm after the convolution and one more."""
    cfg = baseline(EMBEDDING_DIM=8)
    state = trained(cfg)
    norm = {n.replace("bottleneck.1", "bnneck"): v for n, v in state.items() if "bottleneck.1." in n}
    torch.save({"model": state | norm}, tmp_path / "old.pth")
    with pytest.raises(WeightsError, match=r"4 tensors are .* none of the model's, first heads\.bnneck\.weight"):
        features_of(cfg, str(tmp_path / "old.pth"))


@pytest.mark.parametrize(
    ("now", "saved", "keys"),
    [
        ({"WITH_IBN": True}, {}, "MODEL.BACKBONE.WITH_IBN False"),
        ({}, {"WITH_IBN": True}, "MODEL.BACKBONE.WITH_IBN True"),
        ({}, {"WITH_SE": True}, "MODEL.BACKBONE.WITH_SE True"),
        ({}, {"DEPTH": "34x"}, "MODEL.BACKBONE.DEPTH 34x"),
        ({"EMBEDDING_DIM": 8}, {"EMBEDDING_DIM": 0}, "MODEL.HEADS.EMBEDDING_DIM 0"),
    ],
)
def test_weights_of_another_architecture(baseline, tmp_path, log, now, saved, keys):
    """Evaluating stops, training warns once; both name the keys, with which the weights are those that were saved."""
    path = str(tmp_path / "w.pth")
    torch.save({"model": trained(baseline(**saved))}, path)
    cfg = baseline(**now)
    with pytest.raises(WeightsError, match=rf"w.pth' is of another architecture: \d+ tensors.*set {keys}, which fits"):
        features_of(cfg, path)
    SafeCheckpointer(build_model(cfg), cfg=cfg).load(path, checkpointables=[])
    (warning,) = log()
    assert f"; what is missing starts at random: set {keys}, which fits the file" in warning.getMessage()
    assert " missing" in warning.getMessage()
    cfg.defrost()
    cfg.merge_from_list(keys.split())
    assert torch.equal(features_of(cfg, path), features_of(baseline(**saved), path))


def test_weights_whose_width_needs_another_key_too(baseline, tmp_path):
    saved = baseline(DEPTH="50x", FEAT_DIM=2048, WITH_NL=True)
    torch.save({"model": trained(saved)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"set MODEL.BACKBONE.DEPTH 50x .*, which fits the file") as error:
        features_of(baseline(), str(tmp_path / "w.pth"))
    words = str(error.value).partition("; set ")[2].partition(", which")[0].split()
    assert set(words[::2]) == {"MODEL.BACKBONE.DEPTH", "MODEL.BACKBONE.WITH_NL", "MODEL.BACKBONE.FEAT_DIM"}
    cfg = baseline()
    cfg.defrost()
    cfg.merge_from_list(words)
    assert torch.equal(features_of(cfg, str(tmp_path / "w.pth")), features_of(saved, str(tmp_path / "w.pth")))


def test_no_key_is_named_that_does_not_fit_the_whole_file(baseline, small_config, tmp_path):
    """The Baseline's heads are not MGRe's, whatever EMBEDDING_DIM."""
    torch.save({"model": trained(baseline(EMBEDDING_DIM=0))}, tmp_path / "w.pth")
    for ibn, keys in (("False", ""), ("True", "MODEL.BACKBONE.WITH_IBN False")):
        cfg = small_config(**{"MODEL.BACKBONE.WITH_IBN": ibn})
        with pytest.raises(WeightsError, match="only its backbone is this model's: use the config") as error:
            features_of(cfg, str(tmp_path / "w.pth"))
        assert "EMBEDDING_DIM" not in str(error.value)
        words = shlex.split(str(error.value).partition("backbone alone by ")[2])
        assert words[:2] == (keys.split() or ["MODEL.WEIGHTS", ""])
        cfg.defrost()
        cfg.merge_from_list(words)
        expected = torch.load(tmp_path / "w.pth")["model"]["backbone.layer4.1.conv2.weight"]
        found = build_model(cfg).state_dict()["backbone.staged.bottom_up.layer4.1.conv2.weight"]
        assert torch.equal(found, expected)


def test_a_backbone_of_another_architecture_as_pretrain_path(baseline, tmp_path, log):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    keys = {"PRETRAIN": True, "PRETRAIN_PATH": tmp_path / "resnet18.pth"}
    build_backbone(baseline(WITH_IBN=True, **keys))
    (warning,) = log()
    assert warning.levelno == logging.WARNING
    assert "into ResNet, which is of another architecture, only 76 of 112 tensors: 36 missing" in warning.getMessage()
    assert "set MODEL.BACKBONE.WITH_IBN False, which fits the file" in warning.getMessage()
    with pytest.raises(
        WeightsError, match=r"does not fit ResNet: .* set MODEL.BACKBONE.DEPTH 18x, which fits the file"
    ):
        build_backbone(baseline(DEPTH="50x", **keys))
    backbone = build_backbone(baseline(**keys))
    expected = torchvision.models.resnet18()
    expected.load_state_dict(torch.load(tmp_path / "resnet18.pth"))
    assert torch.equal(backbone.layer1[1].conv2.weight, expected.layer1[1].conv2.weight)
    assert len(log()) == 1


def test_torchreids_osnet(baseline, tmp_path, log):
    """torchreid's OSNet has the toolbox's names, and two layers more."""
    keys = {"NAME": "build_osnet_backbone", "DEPTH": "x0_25"}
    expected = build_backbone(baseline(**keys)).state_dict()
    rest = {"fc.0.weight": torch.zeros(512, 128), "classifier.weight": torch.zeros(751, 512)}
    torch.save({"state_dict": prefixed("module.", expected | rest), "rank1": 0.9}, tmp_path / "osnet.pth.tar")
    keys |= {"PRETRAIN": True, "PRETRAIN_PATH": tmp_path / "osnet.pth.tar"}
    backbone = build_backbone(baseline(**keys))
    assert all(torch.equal(backbone.state_dict()[name], value) for name, value in expected.items())
    assert not log()
    build_backbone(baseline(**keys | {"WITH_IBN": True}))
    (warning,) = log()
    assert "set MODEL.BACKBONE.WITH_IBN False, which fits the file" in warning.getMessage()


def test_non_local_blocks_that_the_file_has_not_may_be_meant(baseline, tmp_path, log):
    keys = {"DEPTH": "50x", "FEAT_DIM": 2048}
    torch.save(build_backbone(baseline(**keys)).state_dict(), tmp_path / "w.pth")
    build_backbone(baseline(**keys, WITH_NL=True, PRETRAIN=True, PRETRAIN_PATH=tmp_path / "w.pth"))
    (warning,) = log()
    assert "non-local blocks start as the identity, so this may be meant; if not, set MODEL.BACKBONE.WITH_NL False" in (
        warning.getMessage()
    )


def test_a_backbone_alone_is_no_model_but_the_message_says_how_to_start_from_it(baseline, tmp_path):
    path = tmp_path / "an 'odd' name.pth"
    torch.save(torchvision.models.resnet18().state_dict(), path)
    cfg = baseline()
    for load in (SafeCheckpointer(build_model(cfg), cfg=cfg).load, lambda path: features_of(cfg, path)):
        with pytest.raises(WeightsError, match=r"only its backbone is this model's") as error:
            load(str(path))
        words = shlex.split(str(error.value).partition("backbone alone by ")[2])
        other = cfg.clone()
        other.defrost()
        other.merge_from_list(words)
        assert other.MODEL.WEIGHTS == ""
        expected = torch.load(path)["layer4.1.conv2.weight"]
        assert torch.equal(build_backbone(other).state_dict()["layer4.1.conv2.weight"], expected)


def test_the_toolboxs_own_trainer_names_no_keys(baseline, tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "w.pth")
    with pytest.raises(
        WeightsError, match=r"first backbone.conv1.weight; use the config the weights were trained with$"
    ):
        SafeCheckpointer(build_model(baseline())).load(str(tmp_path / "w.pth"))


def test_weights_of_other_pixel_statistics(baseline, tmp_path, log):
    cfg = baseline()
    state = trained(cfg) | {"pixel_mean": torch.tensor([89.896, 79.2, 80.073]).view(1, 3, 1, 1)}
    torch.save({"model": state}, tmp_path / "lup.pth")
    keys = 'MODEL.PIXEL_MEAN "[89.896,79.2,80.073]"'
    with pytest.raises(WeightsError, match="other pixel statistics: set ") as error:
        features_of(cfg, str(tmp_path / "lup.pth"))
    assert str(error.value).endswith(keys)
    SafeCheckpointer(build_model(cfg), cfg=cfg).load(str(tmp_path / "lup.pth"), checkpointables=[])
    (warning,) = log()
    assert keys in warning.getMessage()
    cfg.defrost()
    cfg.merge_from_list(shlex.split(keys))
    features_of(cfg, str(tmp_path / "lup.pth"))


class _Transformed(nn.Module):
    def __init__(self, height: int, width: int, stride: int = 16) -> None:
        super().__init__()
        self.backbone = VisionTransformer(
            img_size=(height, width), stride_size=stride, embed_dim=4, depth=1, num_heads=1, mlp_ratio=1.0
        )


def test_a_transformer_of_another_image_size_as_weights(tmp_path):
    saved, model = _Transformed(256, 128, stride=12), _Transformed(128, 64)
    columns = (torch.arange(10) + 0.5) / 10  # of the grid of 21 x 10
    with torch.no_grad():
        saved.backbone.pos_embed[0, 1:] = columns.repeat(21)[:, None]
    torch.save({"model": saved.state_dict()}, tmp_path / "vit.pth")
    SafeCheckpointer(model).load(str(tmp_path / "vit.pth"), checkpointables=[])
    found = model.backbone.pos_embed[0, 1:].view(8, 4, 4)
    torch.testing.assert_close(found, ((torch.arange(4) + 0.5) / 4)[None, :, None].expand(8, 4, 4))
    assert torch.equal(model.backbone.cls_token, saved.backbone.cls_token)
    torch.save({"model": saved.state_dict() | {"backbone.pos_embed": torch.zeros(1, 118, 4)}}, tmp_path / "vit.pth")
    with pytest.raises(WeightsError, match=r"embedding of .*vit.pth has 118 tokens"):
        SafeCheckpointer(model).load(str(tmp_path / "vit.pth"))
