"""One weight file in the form of each well-known code, and the recipes for the weights of two: what is loaded, and the
number of tensors that the log tells."""

import argparse
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from fastreid.config import CfgNode
from fastreid.modeling import build_model
from fastreid.modeling.backbones import build_backbone
from mgre.config import load_config
from mgre.config.shipped import shipped_names
from mgre.engine.load_model import load_model
from mgre.engine.safe_checkpointer import SafeCheckpointer
from mgre.errors import WeightsError
from mgre.modeling.pretrained import match

State = dict[str, torch.Tensor]

# Parameters and statistics. ResNet-18 has 20 convolutions with a weight each, and as many norms with four tensors each.
RESNET18 = 20 + 20 * 4
# With IBN, the first norm of each of the six blocks of layers 1 to 3 is a batch norm and an instance norm, which has a
# weight and a bias.
RESNET18_IBN = RESNET18 + 6 * 2


@pytest.fixture
def loaded_counts() -> Iterator[Callable[[], list[str]]]:
    """What the log says of loaded tensors, without the paths."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("mgre")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield lambda: [re.sub(r" from \S+", "", text) for text in messages if text.startswith("Loaded")]
    logger.removeHandler(handler)
    logger.setLevel(level)


def with_pretrained(load: Callable[..., CfgNode], path: Path, config: str = "Base-MGRe", **keys: str) -> CfgNode:
    given = {"MODEL.BACKBONE.PRETRAIN": "True", "MODEL.BACKBONE.PRETRAIN_PATH": str(path)}
    return load(config, **given | {f"MODEL.BACKBONE.{key}": value for key, value in keys.items()})


def resnet18() -> State:
    torch.manual_seed(5)
    return torchvision.models.resnet18().state_dict()


def no_classifier(state: State) -> State:
    return {name: value for name, value in state.items() if not name.startswith("fc.")}


def resnet18_ibn(load: Callable[..., CfgNode]) -> State:
    torch.manual_seed(5)
    plain = load(**{"MODEL.BACKBONE.NAME": "build_resnet_backbone", "MODEL.META_ARCHITECTURE": "Baseline"})
    return build_backbone(plain).state_dict()


def cions(state: State) -> dict:
    """A student and its teacher in the wrapper of several GPUs, with heads, and the command line."""
    teacher = {f"module.backbone.{name}": value for name, value in state.items()}
    teacher["module.head.last_layer.weight"] = torch.zeros(4, 4)
    student = {name: torch.zeros_like(value) for name, value in teacher.items()}
    return {"student": student, "teacher": teacher, "epoch": 99, "args": argparse.Namespace(arch="resnet50_ibn")}


def half(state: State) -> State:
    return {name: value.half() if value.is_floating_point() else value for name, value in state.items()}


PLAIN = {  # of a ResNet-18 without IBN: how the file is written, and what its log says beside the number
    "LUPerson": (lambda state, path: torch.save(no_classifier(state), path), "0 missing, 0 left over"),
    "torchvision": (torch.save, "0 missing, 2 left over (fc.weight, fc.bias)"),
    "timm": (lambda state, path: torch.save({"state_dict": timm.create_model("resnet18").state_dict() | state}, path),
             "0 missing, 2 left over (fc.weight, fc.bias)"),
    "safetensors": (safetensors.torch.save_file, "0 missing, 2 left over (fc.bias, fc.weight)"),
    "float16": (lambda state, path: torch.save(half(state), path), "0 missing, 2 left over (fc.weight, fc.bias)"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_a_resnet_of_another_code(name, small_config, tmp_path, loaded_counts):
    write, rest = PLAIN[name]
    state = resnet18()
    write(state, tmp_path / "w")
    backbone = build_backbone(with_pretrained(small_config, tmp_path / "w", WITH_IBN="False")).staged.bottom_up
    expected = half(state) if name == "float16" else state
    found = backbone.state_dict()
    assert all(
        value.dtype == state[n].dtype and torch.equal(value, expected[n].to(value)) for n, value in found.items()
    )
    assert loaded_counts() == [f"Loaded into ResNet {RESNET18} of {RESNET18} tensors: {rest}"]


def test_a_teacher_as_cions(small_config, tmp_path, loaded_counts):
    state = resnet18_ibn(small_config)
    torch.save(cions(state), tmp_path / "w.pth")
    found = build_backbone(with_pretrained(small_config, tmp_path / "w.pth")).staged.bottom_up.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in found.items())
    (count,) = loaded_counts()
    assert count.startswith(f"Loaded into ResNet {RESNET18_IBN} of {RESNET18_IBN} tensors: 0 missing, 1 left over")


def test_torchreids_osnet_inside_mgre(small_config, tmp_path, loaded_counts):
    keys = {"MODEL.MGRE.BACKBONE": "build_osnet_backbone", "MODEL.BACKBONE.DEPTH": "x0_25"}
    keys["MODEL.BACKBONE.WITH_IBN"] = "False"
    backbone = build_backbone(small_config(**keys)).staged.bottom_up.state_dict()
    # torchreid's embedding, a linear layer and a norm, and its classifier.
    rest = {"fc.0.weight": torch.zeros(512, 128), "fc.1.weight": torch.zeros(512), "classifier.weight": torch.zeros(2)}
    state = {f"module.{name}": value for name, value in (backbone | rest).items()}
    torch.save({"state_dict": state, "epoch": 60, "rank1": 0.9}, tmp_path / "w.pth.tar")
    cfg = with_pretrained(lambda config, **own: small_config(config, **keys | own), tmp_path / "w.pth.tar")
    found = build_backbone(cfg).staged.bottom_up.state_dict()
    assert all(torch.equal(value, backbone[name]) for name, value in found.items())
    number = len([name for name in backbone if "num_batches" not in name])
    (count,) = loaded_counts()
    assert count.startswith(f"Loaded into OSNet {number} of {number} tensors: 0 missing, 3 left over")


def test_timms_own_model(small_config, tmp_path, loaded_counts):
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "w.pth")
    build_backbone(
        with_pretrained(
            lambda config, **own: small_config(
                config, **own, **{"MODEL.MGRE.BACKBONE": "build_timm_backbone", "MODEL.TIMM.NAME": "resnet18"}
            ),
            tmp_path / "w.pth",
        )
    )
    assert loaded_counts() == [f"Loaded timm's resnet18 with {RESNET18} tensors"]


def test_a_whole_model_of_the_zoo_with_old_names(small_config, tmp_path, loaded_counts):
    """The classifier, of as many identities as the training has, counts in a training and an evaluation."""
    plain = {"MODEL.META_ARCHITECTURE": "Baseline", "MODEL.BACKBONE.NAME": "build_resnet_backbone"}
    plain |= {"MODEL.BACKBONE.FEAT_DIM": "512", "MODEL.HEADS.NAME": "EmbeddingHead", "MODEL.HEADS.EMBEDDING_DIM": "0"}
    cfg = small_config(**plain, **{"MODEL.WEIGHTS": str(tmp_path / "w.pth")})
    state = build_model(cfg).state_dict()
    old = {n.replace("bottleneck.0", "bnneck").replace("heads.weight", "heads.classifier.weight"): v
           for n, v in state.items()}  # fmt: skip
    assert set(old) - set(state) >= {"heads.bnneck.weight", "heads.classifier.weight"}
    torch.save({"model": old}, tmp_path / "w.pth")
    model = build_model(cfg)
    SafeCheckpointer(model, cfg=cfg).load(cfg.MODEL.WEIGHTS, checkpointables=[])
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    load_model(cfg)
    number = RESNET18_IBN + 4 + 1  # the heads' norm and classifier
    assert loaded_counts() == [f"Loaded into Baseline {number} of {number} tensors: 0 missing, 0 left over"] * 2


# -- The recipes ---------------------------------------------------------------------------------------

# WITH_IBN, PIXEL_MEAN, PIXEL_STD and the size of the images, as docs/weights.md has them.
RECIPES = {
    "luperson": (False, [89.896, 79.2, 80.073], [63.872, 64.305, 63.839], [384, 128]),
    "cion": (True, [123.675, 116.28, 103.53], [58.395, 57.12, 57.375], [256, 128]),
}


def test_every_recipe_is_known_here():
    assert {f"mgre://weights/{name}.yml" for name in RECIPES} == {n for n in shipped_names() if "/weights/" in n}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_takes_the_file_that_it_is_for(name, small_config, tmp_path, loaded_counts):
    with_ibn, mean, std, _ = RECIPES[name]
    state = resnet18_ibn(small_config) if with_ibn else no_classifier(resnet18())
    torch.save(cions(state) if with_ibn else state, tmp_path / "w.pth")
    model = build_model(with_pretrained(small_config, tmp_path / "w.pth", f"weights/{name}"))
    found = model.backbone.staged.bottom_up.state_dict()
    assert all(torch.equal(value, state[n]) for n, value in found.items())
    number = RESNET18_IBN if with_ibn else RESNET18
    assert loaded_counts()[0].startswith(f"Loaded into ResNet {number} of {number} tensors: 0 missing, ")
    assert model.pixel_mean.flatten().tolist() == pytest.approx(mean)
    assert model.pixel_std.flatten().tolist() == pytest.approx(std)
    assert model.backbone.extra_bn.num_features == 512


def test_luperson_at_its_own_depth_has_the_names_of_torchvisions_resnet50():
    cfg = load_config("mgre://weights/luperson.yml", ["MODEL.DEVICE", "cpu", "MODEL.BACKBONE.PRETRAIN", "False"])
    with torch.device("meta"):  # names and shapes, without memory
        found = match(build_backbone(cfg).staged.bottom_up, torchvision.models.resnet50().state_dict())
    assert found.is_exact and found.left_over == ["fc.weight", "fc.bias"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_the_papers_config_but_for_what_it_names(name, tmp_path):
    """Also for another data set, as in docs/weights.md."""
    with_ibn, mean, std, size = RECIPES[name]
    own = f"_BASE_: mgre://weights/{name}.yml\nDATASETS:\n  NAMES: ('DukeMTMC',)\n  TESTS: ('DukeMTMC',)\n"
    (tmp_path / "own.yml").write_text(own)
    found = load_config(str(tmp_path / "own.yml"), ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", "x"])
    paper = load_config("mgre://duke.yml", ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", "x"])
    assert found.MODEL.BACKBONE.PRETRAIN_PATH.endswith(".pth")
    paper.defrost()
    paper.MODEL.BACKBONE.PRETRAIN_PATH = found.MODEL.BACKBONE.PRETRAIN_PATH
    paper.MODEL.BACKBONE.WITH_IBN, paper.MODEL.MGRE.EXTRA_BN = with_ibn, True
    paper.MODEL.PIXEL_MEAN, paper.MODEL.PIXEL_STD = mean, std
    paper.INPUT.SIZE_TRAIN = paper.INPUT.SIZE_TEST = size
    assert found == paper


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_without_its_file_takes_no_other_weights(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    cfg = load_config(f"mgre://weights/{name}.yml", ["MODEL.DEVICE", "cpu", "MODEL.BACKBONE.DEPTH", "18x"])
    with pytest.raises(WeightsError, match=r"weight file '\w+.pth' does not exist"):
        build_backbone(cfg)


@pytest.mark.parametrize(("now", "saved"), [("False", "True"), ("True", "False")])
def test_weights_of_a_model_with_another_extra_batch_norm(now, saved, build_small, small_config, tmp_path):
    torch.save({"model": build_small(**{"MODEL.MGRE.EXTRA_BN": saved}).state_dict()}, tmp_path / "w.pth")
    keys = {"MODEL.WEIGHTS": str(tmp_path / "w.pth")}
    with pytest.raises(WeightsError, match=f"first backbone.extra_bn.weight; set MODEL.MGRE.EXTRA_BN {saved}, which"):
        load_model(small_config(**keys, **{"MODEL.MGRE.EXTRA_BN": now}))
    load_model(small_config(**keys, **{"MODEL.MGRE.EXTRA_BN": saved}))
