import pytest
import torch
from fastreid.config import get_cfg
from fastreid.modeling import build_model
from fastreid.modeling.backbones import BACKBONE_REGISTRY, build_backbone, mobilenetv3, resnet
from fastreid.modeling.meta_arch import MGN, Baseline
from fastreid.utils.events import EventStorage
from mgre.compat import modeling
from mgre.errors import WeightsError


def baseline_config():
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.DEPTH = "18x"
    cfg.MODEL.BACKBONE.FEAT_DIM = 512
    cfg.MODEL.HEADS.NUM_CLASSES = 4
    return cfg


def random_batch():
    generator = torch.Generator().manual_seed(0)
    return {
        "images": 255 * torch.rand(4, 3, 32, 16, generator=generator),
        "targets": torch.tensor([0, 0, 1, 1]),
    }


# -- Batches --------------------------------------------------------------------------------------


def test_baseline_leaves_the_batch_alone():
    model = build_model(baseline_config()).eval()
    batch = random_batch()
    images = batch["images"].clone()
    with torch.no_grad():
        first, second = model(batch), model(batch)
        expected = model.heads(model.backbone((images - model.pixel_mean) / model.pixel_std))
        of_tensor = model(batch["images"])
    assert torch.equal(batch["images"], images)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, expected)
    torch.testing.assert_close(of_tensor, expected)


def test_mgn_leaves_the_batch_alone():
    # Its 70 million parameters play no part here.
    model = MGN.__new__(MGN)
    torch.nn.Module.__init__(model)
    model.pixel_mean, model.pixel_std = torch.full((1, 3, 1, 1), 100.0), torch.full((1, 3, 1, 1), 50.0)
    batch = random_batch()
    images = batch["images"].clone()
    assert torch.equal(model.preprocess_image(batch), (images - 100) / 50)
    assert torch.equal(batch["images"], images)


@pytest.mark.parametrize("arch", [Baseline, MGN])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bytes_are_normalised_as_the_numbers_they_are(arch, dtype):
    model = arch.__new__(arch)
    torch.nn.Module.__init__(model)
    model.pixel_mean, model.pixel_std = (
        torch.full((1, 3, 1, 1), 123.675, dtype=dtype),
        torch.tensor(58.395, dtype=dtype),
    )
    images = torch.arange(3 * 256).remainder(256).reshape(1, 3, 16, 16).to(torch.uint8)
    normalised = model.preprocess_image({"images": images})
    assert normalised.dtype == dtype and torch.equal(normalised, model.preprocess_image(images.to(dtype)))
    assert torch.equal(normalised, (images.to(dtype) - model.pixel_mean) / model.pixel_std)


@pytest.mark.parametrize("arch", [Baseline, MGN])
def test_batches_on_another_device_are_moved(arch):
    class Forwarded(Exception):
        pass

    class Model:
        pixel_mean = pixel_std = torch.ones(1, 3, 1, 1, device="meta")
        device = pixel_mean.device
        preprocess_image = arch.preprocess_image

        def backbone(self, images):
            raise Forwarded(images.device.type)

    batch = random_batch()
    with pytest.raises(Forwarded, match="meta"):
        arch.forward(Model(), batch)

    class TargetsOnly(Model):
        training, losses = True, None

        def preprocess_image(self, moved):
            return torch.zeros(1) if arch is Baseline else self.heads(None, moved["targets"])

        def backbone(self, images):
            return images

        def heads(self, features, targets):
            raise Forwarded(targets.device.type)

    with pytest.raises(Forwarded, match="meta"):
        arch.forward(TargetsOnly(), batch)
    assert batch["targets"].device.type == "cpu"


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.3, -1.0])
def test_cross_entropy_is_the_toolboxs(eps):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    logits[0, 2] = 1e3  # a loss of exactly 0 where nothing is smoothed, which does not count in the mean
    targets = torch.tensor([2, 0, 1, 4, 3, 3])
    found, expected = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    losses = modeling.cross_entropy.cross_entropy_loss, modeling.cross_entropy.cross_entropy_loss.__wrapped__
    values = [loss(x, targets, eps, 0.2) for loss, x in zip(losses, (found, expected), strict=True)]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(torch.autograd.grad(values[0], found), torch.autograd.grad(values[1], expected))


@pytest.mark.parametrize("model", [Baseline, MGN])
def test_other_inputs_are_still_refused(model):
    with pytest.raises(TypeError, match=r"must be dict or torch.Tensor"):
        model.preprocess_image(model.__new__(model), [1, 2])


def test_precise_bn_targets_leave_the_batch_alone():
    # The toolbox sets targets of -1, its sign of precise BN, to 0.
    model = build_model(baseline_config()).train()
    batch = random_batch() | {"targets": torch.full((4,), -1)}
    with EventStorage():
        losses = model(batch)
    assert torch.isfinite(sum(losses.values()))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_move_to_the_models_device():
    cfg = baseline_config()
    cfg.MODEL.DEVICE = "cuda"
    with EventStorage():
        losses = build_model(cfg).train()(random_batch())
    assert all(loss.is_cuda for loss in losses.values())


# -- Pretrained weights ---------------------------------------------------------------------------

DEPTHS = {
    "build_resnet_backbone": "18x",
    "build_resnext_backbone": "50x",
    "build_resnest_backbone": "50x",
    "build_osnet_backbone": "x0_25",
    "build_regnet_backbone": "200x",
    "build_effnet_backbone": "b0",
    "build_shufflenetv2_backbone": "0.5x",
    "build_mobilenetv2_backbone": "0.1x",
    "build_mobilenetv3_backbone": "Small",
    "build_repvgg_backbone": "A0",
    "build_vit_backbone": "small",
}


def backbone_config(name: str, path: str = "", pretrain: bool = True):
    cfg = get_cfg()
    cfg.INPUT.SIZE_TRAIN = [64, 32]
    cfg.MODEL.BACKBONE.NAME = name
    cfg.MODEL.BACKBONE.DEPTH = DEPTHS[name]
    cfg.MODEL.BACKBONE.PRETRAIN = pretrain
    cfg.MODEL.BACKBONE.PRETRAIN_PATH = path
    return cfg


def assert_same_state(backbone, expected):
    state = backbone.state_dict()
    assert all(torch.equal(state[name], value) for name, value in expected.items())


def test_every_backbone_of_the_toolbox_is_known_here():
    assert {n for n, b in BACKBONE_REGISTRY._obj_map.items() if b.__module__.startswith("fastreid.")} == set(DEPTHS)


@pytest.mark.usefixtures("quick_random_weights")
@pytest.mark.parametrize("name", DEPTHS)
def test_every_backbone_loads_a_wrapped_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    torch.manual_seed(0)
    expected = build_backbone(backbone_config(name, pretrain=False)).state_dict()
    wrapped = {f"module.encoder.{k}": v for k, v in expected.items()} | {"module.fc.weight": torch.zeros(2, 2)}
    torch.save({"state_dict": wrapped, "epoch": 3}, path)
    torch.manual_seed(1)
    assert_same_state(build_backbone(backbone_config(name, str(path))), expected)


def test_weights_that_cannot_be_downloaded(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("gdown.download", offline)
    monkeypatch.setattr(mobilenetv3, "load_state_dict_from_url", offline)
    for name in ("build_osnet_backbone", "build_mobilenetv3_backbone"):
        with pytest.raises(WeightsError, match=r"no route to host.*MODEL.BACKBONE.PRETRAIN_PATH"):
            build_backbone(backbone_config(name))


def test_downloaded_weights_are_loaded(tmp_path, monkeypatch):
    name = "build_osnet_backbone"
    expected = build_backbone(backbone_config(name, pretrain=False)).state_dict()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("gdown.download", lambda url, path, quiet: torch.save(expected, path))
    assert_same_state(build_backbone(backbone_config(name)), expected)


def test_backbone_without_published_weights():
    with pytest.raises(WeightsError, match=r"build_repvgg_backbone A0 .*set MODEL.BACKBONE.PRETRAIN_PATH"):
        build_backbone(backbone_config("build_repvgg_backbone"))


def test_wrong_depth_is_not_taken_for_missing_weights():
    cfg = backbone_config("build_resnet_backbone")
    cfg.MODEL.BACKBONE.DEPTH = "152x"
    with pytest.raises(KeyError, match="152x"):
        build_backbone(cfg)


def test_builders_keep_their_names():
    assert resnet.build_resnet_backbone is BACKBONE_REGISTRY.get("build_resnet_backbone")
    assert resnet.build_resnet_backbone.__name__ == "build_resnet_backbone"
