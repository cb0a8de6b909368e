"""Class activation maps against closed forms and against autograd on the parts by hand; the pictures of Figure 4."""

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastreid.modeling import build_model
from fastreid.modeling.backbones.build import BACKBONE_REGISTRY
from mgre.config import load_config
from mgre.errors import ConfigError, DataError, SetupError, WeightsError
from mgre.modeling.backbone import STAGES
from mgre.reproduction import activation
from mgre.reproduction.activation import activation_maps, activation_sheet, save_figure4, stage_cams
from PIL import Image
from torch import nn

SIZE = (64, 32)
BASELINE = {
    "MODEL.META_ARCHITECTURE": "Baseline",
    "MODEL.BACKBONE.NAME": "build_resnet_backbone",
    "MODEL.BACKBONE.FEAT_DIM": "512",
    "MODEL.HEADS.NAME": "EmbeddingHead",
}
TIMM = {"MODEL.BACKBONE.NAME": "build_timm_backbone", "MODEL.TIMM.NAME": "resnet18"}


def batch_of(seed: int, batch_size: int = 2) -> dict[str, torch.Tensor]:
    return {"images": torch.rand(batch_size, 3, *SIZE, generator=torch.Generator().manual_seed(seed)) * 255}


@pytest.fixture
def batches():
    return batch_of(1), batch_of(2)


class LinearBaseline(nn.Module):
    """Four linear stages and an average pooling: its class activation maps have a closed form."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Module()
        channels = (3, 4, 6, 5, 7)
        for i in range(4):
            stage = nn.Sequential(nn.Conv2d(channels[i], channels[i + 1], 1, bias=False))
            setattr(self.backbone, f"layer{i + 1}", stage)
        self.heads = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 8, bias=False))

    @property
    def stages(self):
        return [getattr(self.backbone, f"layer{i}")[0] for i in range(1, 5)]

    def forward(self, batched_inputs):
        x = batched_inputs["images"] / 255
        for stage in self.stages:
            x = stage(x)
        return self.heads(x)


def test_maps_of_a_linear_model_have_their_closed_form(batches):
    batch, reference = batches
    model = LinearBaseline()
    cams = stage_cams(model, batch, reference)
    with torch.no_grad():
        features, others = model(batch), model(reference)
        similarity = F.cosine_similarity(features, others)
        # f = P mean(A_i), P the product of what follows the map; so the cell x adds r^T P A_i(x) / (H W |f| |r|).
        projection, x = model.heads[2].weight, batch["images"] / 255
        maps = {name: (x := stage(x)) for name, stage in zip(STAGES, model.stages, strict=True)}
        for name, stage in reversed(list(zip(STAGES, model.stages, strict=True))):
            weights = F.normalize(others, dim=1) @ projection / features.norm(dim=1, keepdim=True)
            expected = torch.einsum("bc,bchw->bhw", weights, maps[name]) / (SIZE[0] * SIZE[1])
            torch.testing.assert_close(cams[name], expected)
            torch.testing.assert_close(cams[name].sum(dim=(1, 2)), similarity)
            projection = projection @ stage.weight[:, :, 0, 0]


def grad_cam(feature: torch.Tensor, other: torch.Tensor, feature_map: torch.Tensor) -> torch.Tensor:
    """``sum_k mean(dS/dA_k) A_k`` by a loop over images and channels."""
    cams = []
    similarity = [(f @ r) / (f.detach().norm() * r.norm()) for f, r in zip(feature, other.detach(), strict=True)]
    gradients = torch.autograd.grad(sum(similarity), feature_map, retain_graph=True)[0]
    for gradient, maps in zip(gradients, feature_map.detach(), strict=True):
        cams.append(sum(g.mean() * a for g, a in zip(gradient, maps, strict=True)))
    return torch.stack(cams)


def mgre_features(model: nn.Module, batch: dict) -> tuple[dict, dict]:
    """MGRe's forward, part by part: F_i as leaves, and f_i."""
    with torch.no_grad():
        maps = model.backbone(model.preprocess_image(batch))
    maps = {stage: m.requires_grad_() for stage, m in maps.items()}
    boxes = {stage: module(maps[stage]) for stage, module in model.location.items()}
    samples = {stage: model.sampling[stage](maps[stage], box) for stage, box in boxes.items()}
    samples["stage4"] = [maps["stage4"]]
    return maps, model.heads({stage: model.extraction[stage](s) for stage, s in samples.items()})


@pytest.mark.parametrize("reid_gradient", ["0.0", "1.0"])
def test_maps_of_mgre_are_grad_cam_of_its_features(build_small, batches, reid_gradient):
    batch, reference = batches
    model = build_small(**{"MODEL.MGRE.LOCATION.REID_GRADIENT": reid_gradient}).eval()
    cams = stage_cams(model, batch, reference)
    maps, features = mgre_features(model, batch)
    others = mgre_features(model, reference)[1]
    expected = {stage: grad_cam(features[stage], others[stage], maps[stage]) for stage in STAGES}
    for stage in STAGES:
        torch.testing.assert_close(cams[stage], expected[stage], rtol=1e-4, atol=1e-7)

    # Fig. 4: upsampled, without what is negative, the largest value of each image 1.
    pictures = activation_maps(model, batch, reference)
    assert list(pictures) == [*STAGES, "final"]
    total = torch.zeros(2, *SIZE)
    for stage, weight in zip(STAGES, (0.35, 0.5, 0.7, 0.8), strict=True):
        cam = F.interpolate(expected[stage][:, None], SIZE, mode="bilinear", align_corners=False)[:, 0]
        cells = expected[stage].shape[1] * expected[stage].shape[2]
        total += weight**2 * cells * cam
        expected[stage] = cam
    for name, cam in (expected | {"final": total}).items():
        for image in range(2):
            positive = cam[image].clamp(min=0)
            torch.testing.assert_close(pictures[name][image], positive / positive.max(), rtol=1e-3, atol=1e-4)


def baseline_features(model: nn.Module, modules: list[nn.Module], batch: dict) -> tuple[list, torch.Tensor]:
    """C_i and f_4 of one forward pass."""
    outputs = {}
    handles = [
        module.register_forward_hook(lambda module, inputs, output: outputs.update({module: output}))
        for module in (*modules, model.heads)
    ]
    model(batch)
    for handle in handles:
        handle.remove()
    feature = outputs.pop(model.heads)
    return [outputs[module] for module in modules], feature["stage4"] if isinstance(feature, dict) else feature


@pytest.mark.parametrize(
    ("overrides", "find_resnet"),
    [
        (BASELINE, lambda model: model.backbone),
        ({"MODEL.MGRE.STAGES": "()"}, lambda model: model.backbone.staged.bottom_up),
        (BASELINE | TIMM, lambda model: model.backbone.body),
    ],
    ids=["toolbox", "MGRe without stages", "timm"],
)
def test_maps_of_a_baseline_are_grad_cam_of_its_one_feature(build_small, batches, overrides, find_resnet):
    batch, reference = batches
    model = build_small(**overrides).eval()
    cams = stage_cams(model, batch, reference)
    modules = [list(getattr(find_resnet(model), f"layer{i}"))[-1] for i in range(1, 5)]
    maps, feature = baseline_features(model, modules, batch)
    other = baseline_features(model, modules, reference)[1]
    for stage, feature_map in zip(STAGES, maps, strict=True):
        torch.testing.assert_close(cams[stage], grad_cam(feature, other, feature_map), rtol=1e-4, atol=1e-7)
    pictures = activation_maps(model, batch, reference)
    torch.testing.assert_close(pictures["final"], pictures["stage4"])


def test_a_stage_that_is_left_out_is_explained_by_the_last_feature(build_small, batches):
    batch, reference = batches
    model = build_small(**{"MODEL.MGRE.STAGES": "(2,)"}).eval()
    cams = stage_cams(model, batch, reference)
    resnet = model.backbone.staged.bottom_up
    maps, feature = baseline_features(model, [resnet.layer1[-1], resnet.layer3[-1]], batch)
    other = baseline_features(model, [], reference)[1]
    for stage, feature_map in zip(("stage1", "stage3"), maps, strict=True):
        torch.testing.assert_close(cams[stage], grad_cam(feature, other, feature_map), rtol=1e-4, atol=1e-7)
    maps, features = mgre_features(model, batch)
    expected = grad_cam(features["stage2"], mgre_features(model, reference)[1]["stage2"], maps["stage2"])
    torch.testing.assert_close(cams["stage2"], expected, rtol=1e-4, atol=1e-7)


def test_a_map_without_anything_positive_is_empty():
    batch = {"images": torch.full((1, 3, *SIZE), 200.0)}
    opposite = {"images": -batch["images"]}
    for picture in activation_maps(LinearBaseline(), batch, opposite).values():
        assert not picture.any() and picture.isfinite().all()


def test_the_model_is_left_as_it_was(build_small, batches):
    model = build_small()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = {name: len(module._forward_hooks) for name, module in model.named_modules()}
    images = batches[0]["images"].clone()
    stage_cams(model, *batches)
    assert model.training
    assert hooks == {name: len(module._forward_hooks) for name, module in model.named_modules()}
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, state[name])
    torch.testing.assert_close(batches[0]["images"], images)


def test_a_model_without_one_head_is_refused(batches):
    with pytest.raises(ConfigError, match="META_ARCHITECTURE Module has not one backbone and one head"):
        stage_cams(nn.Module(), *batches)


def test_a_timm_model_without_stage_modules_is_refused(build_small, batches):
    overrides = BASELINE | TIMM | {"MODEL.TIMM.NAME": "mobilenetv3_small_050", "MODEL.BACKBONE.LAST_STRIDE": "2"}
    with pytest.raises(ConfigError, match=r"MODEL\.TIMM\.NAME has no module for each stage"):
        stage_cams(build_small(**overrides), *batches)


class OwnNet(nn.Module):
    """The toolbox's ResNet behind maps() and stage_modules()."""

    def __init__(self, resnet):
        super().__init__()
        self.resnet = resnet
        self.channels = dict(zip(STAGES, (64, 128, 256, 512), strict=True))

    def maps(self, images):
        found = {}
        modules = self.stage_modules()
        hooks = [m.register_forward_hook(lambda m, i, o, s=s: found.update({s: o})) for s, m in modules.items()]
        self.resnet(images)
        for hook in hooks:
            hook.remove()
        return found

    def stage_modules(self):
        return {f"stage{i}": getattr(self.resnet, f"layer{i}")[-1] for i in range(1, 5)}


class WithoutModules(OwnNet):
    stage_modules = property()

    def maps(self, images):
        return {stage: images[:, :1].expand(-1, size, -1, -1) for stage, size in self.channels.items()}


def test_a_backbone_of_ones_own_tells_its_stages(build_small, batches, monkeypatch):
    build_resnet = BACKBONE_REGISTRY.get("build_resnet_backbone")
    expected = stage_cams(build_small().eval(), *batches)
    monkeypatch.setitem(BACKBONE_REGISTRY._obj_map, "build_own", lambda cfg: OwnNet(build_resnet(cfg)))
    found = stage_cams(build_small(**{"MODEL.MGRE.BACKBONE": "build_own"}).eval(), *batches)
    for stage in STAGES:
        torch.testing.assert_close(found[stage], expected[stage])

    monkeypatch.setitem(BACKBONE_REGISTRY._obj_map, "build_own", lambda cfg: WithoutModules(None))
    model = build_small(**{"MODEL.MGRE.BACKBONE": "build_own", "MODEL.MGRE.STAGES": "()"})
    with pytest.raises(ConfigError, match=r"WithoutModules has no stage_modules\(\)"):
        stage_cams(model, *batches)


def test_a_missing_package_is_an_error_that_says_how_to_install_it(monkeypatch, batches):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(SetupError, match=r"pip install 'captum>=0\.9'"):
        stage_cams(LinearBaseline(), *batches)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SetupError, match="pip install matplotlib"):
        activation_sheet({"MGRe": {"stage1": torch.zeros(SIZE)}}, torch.zeros(3, *SIZE), torch.zeros(3, *SIZE))


def test_a_sheet_has_a_row_for_each_model_and_shows_its_maps_over_the_image(batches):
    image, other = (batch["images"][0] for batch in batches)
    maps = {name: {stage: torch.rand(SIZE) for stage in (*STAGES, "final")} for name in ("MGRe", "Baseline")}
    figure = activation_sheet(maps, image, other)
    axes = np.array(figure.axes).reshape(2, 7)
    assert [axis.get_ylabel() for axis in axes[:, 0]] == ["MGRe", "Baseline"]
    titles = ["image", "same identity", "stage 1", "stage 2", "stage 3", "stage 4", "final"]
    assert [axis.get_title() for axis in axes[0]] == titles
    for row, name in zip(axes, maps, strict=True):
        shown = [[picture.get_array() for picture in axis.images] for axis in row]
        np.testing.assert_array_equal(shown[0][0], image.to(torch.uint8).permute(1, 2, 0))
        np.testing.assert_array_equal(shown[1][0], other.to(torch.uint8).permute(1, 2, 0))
        for (photo, cam), expected in zip(shown[2:], maps[name].values(), strict=True):
            np.testing.assert_array_equal(photo, image.to(torch.uint8).permute(1, 2, 0))
            np.testing.assert_array_equal(cam, expected)


@pytest.fixture
def figure4_cfgs(small_run, quick_random_weights, tmp_path):
    """Configs of an untrained MGRe and an untrained Baseline on three test identities, with their checkpoints."""

    def load(name, *overrides):
        weights = tmp_path / f"{name}.pth"
        cfg = load_config("configs/MGRe/custom.yml", [*small_run, *overrides, "MODEL.HEADS.NUM_CLASSES", "8"])
        torch.save({"model": build_model(cfg).state_dict()}, weights)
        return load_config("configs/MGRe/custom.yml", [*small_run, *overrides, "MODEL.WEIGHTS", str(weights)])

    overrides = [word for pair in BASELINE.items() for word in pair]
    return {"MGRe": load("mgre"), "Baseline": load("baseline", *overrides)}


def test_figure4_is_a_picture_for_each_identity(figure4_cfgs, tmp_path):
    paths = save_figure4(figure4_cfgs, tmp_path / "new" / "figure4", num_identities=2)
    # At even spacing: the first and the last of 21, 22, 23.
    assert [path.name for path in paths] == ["figure4_21.png", "figure4_23.png"]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == ["figure4_21.png", "figure4_23.png"]
    for path in paths:
        with Image.open(path) as picture:
            assert np.asarray(picture.convert("RGB")).std() > 10


def test_an_identity_whose_image_cannot_be_read_has_no_picture(figure4_cfgs, tmp_path, caplog):
    for cfg in figure4_cfgs.values():
        cfg.defrost()
        cfg.DATASETS.UNREADABLE_IMAGES = "skip"
    min((tmp_path / "own" / "query").glob("0021*.jpg")).write_bytes(b"")
    paths = save_figure4(figure4_cfgs, tmp_path / "figure4", num_identities=2)
    assert [path.name for path in paths] == ["figure4_23.png"]
    assert "21 has no picture: one of its images cannot be read" in caplog.text


def test_an_image_is_compared_with_another_camera_of_its_identity():
    query = [("q0", 5, 1), ("q1", 5, 2), ("q2", 3, 1), ("q3", 9, 1), ("q4", 7, 1)]
    gallery = [("g5", 5, 1), ("g6", 3, 2), ("g7", 5, 2), ("g8", 5, 3), ("g9", 9, 1), ("g10", 7, 3), ("g11", 0, 2)]
    # Identity 9 was seen by one camera only; 0 is no query.
    assert activation._pick_pairs(query + gallery, 5, 8) == [(2, 6), (0, 7), (4, 10)]
    assert activation._pick_pairs(query + gallery, 5, 2) == [(2, 6), (4, 10)]
    assert activation._pick_pairs(query, 5, 8) == []


@pytest.mark.parametrize(
    ("key", "value", "error", "message"),
    [
        ("MODEL.WEIGHTS", "", ConfigError, "needs a checkpoint of Baseline: set MODEL.WEIGHTS"),
        ("INPUT.SIZE_TEST", [96, 48], ConfigError, "differ in INPUT.SIZE_TEST"),
        ("MODEL.WEIGHTS", "mgre.pth", WeightsError, "of another architecture"),
    ],
)
def test_configs_that_do_not_fit_are_refused(figure4_cfgs, tmp_path, key, value, error, message):
    cfg = figure4_cfgs["Baseline"]
    cfg.defrost()
    cfg.merge_from_list([key, str(tmp_path / value) if str(value).endswith(".pth") else value])
    with pytest.raises(error, match=message):
        save_figure4(figure4_cfgs, tmp_path / "figure4")
    assert not list(tmp_path.glob("figure4/*"))


def test_a_test_set_of_one_camera_is_refused(figure4_cfgs, tmp_path, make_market_folder):
    folder = make_market_folder(tmp_path / "one", cameras=(1,))
    for cfg in figure4_cfgs.values():
        cfg.defrost()
        cfg.DATASETS.CUSTOM.ROOT = str(folder)
    with pytest.raises(DataError, match="no identity with a query image and a gallery image of another camera"):
        save_figure4(figure4_cfgs, tmp_path / "figure4")
