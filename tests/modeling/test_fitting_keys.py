import pytest
import torch
import torchvision
from fastreid.modeling import build_model
from fastreid.modeling.backbones import build_backbone
from mgre.modeling.fitting_keys import fitting_head_keys, fitting_keys

# Names and shapes are compared, so any weights will do.
pytestmark = pytest.mark.usefixtures("quick_random_weights")


@pytest.fixture
def baseline(small_config):
    """The config of the toolbox's Baseline with this backbone, and keys of MODEL.BACKBONE and MODEL.HEADS."""

    def load(name: str = "resnet", **keys: object):
        pooling = {f"MODEL.HEADS.{key}": str(keys.pop(key)) for key in ("POOL_LAYER", "EMBEDDING_DIM") if key in keys}
        overrides = {
            "MODEL.META_ARCHITECTURE": "Baseline",
            "MODEL.BACKBONE.NAME": f"build_{name}_backbone",
            "MODEL.BACKBONE.FEAT_DIM": "512",
            "MODEL.HEADS.NAME": "EmbeddingHead",
            **{f"MODEL.BACKBONE.{key}": str(value) for key, value in keys.items()},
        }
        return small_config(**overrides | pooling)

    return load


def backbone_state(cfg) -> dict[str, torch.Tensor]:
    return {f"module.{name}": value for name, value in build_backbone(cfg).state_dict().items()}


@pytest.mark.parametrize(
    ("now", "saved", "keys"),
    [
        ({"WITH_IBN": True}, {"WITH_IBN": False}, "MODEL.BACKBONE.WITH_IBN False"),
        ({"WITH_IBN": False}, {"WITH_IBN": True}, "MODEL.BACKBONE.WITH_IBN True"),
        ({"WITH_IBN": False}, {"WITH_IBN": False, "WITH_SE": True}, "MODEL.BACKBONE.WITH_SE True"),
        ({"DEPTH": "34x"}, {"DEPTH": "18x"}, "MODEL.BACKBONE.DEPTH 18x"),
        ({"DEPTH": "18x"}, {"DEPTH": "34x"}, "MODEL.BACKBONE.DEPTH 34x"),
        (
            {"DEPTH": "50x", "WITH_IBN": True, "WITH_NL": True},
            {"DEPTH": "18x", "WITH_IBN": False, "WITH_SE": True},
            "MODEL.BACKBONE.DEPTH 18x MODEL.BACKBONE.WITH_SE True",
        ),
        ({"WITH_IBN": True}, {"WITH_IBN": True}, ""),
    ],
)
def test_the_keys_of_a_resnet_are_found(baseline, now, saved, keys):
    found = fitting_keys(baseline(**now), backbone_state(baseline(**saved)))
    if now.get("WITH_NL"):  # of the four switches that have to change, the order is that of the config's
        assert found.split()[:2] == ["MODEL.BACKBONE.DEPTH", "18x"]
        assert {"MODEL.BACKBONE.WITH_IBN", "MODEL.BACKBONE.WITH_SE", "MODEL.BACKBONE.WITH_NL"} >= set(
            found.split()[2::2]
        )
    else:
        assert found == keys
    # The overrides are true: with them, the backbone has exactly the file's tensors.
    words = found.split()
    cfg = baseline(**now)
    cfg.defrost()
    cfg.merge_from_list(words)
    expected = {name.removeprefix("module."): v.shape for name, v in backbone_state(baseline(**saved)).items()}
    assert {name: v.shape for name, v in build_backbone(cfg).state_dict().items()} == expected


@pytest.mark.parametrize(
    ("now", "saved", "keys"),
    [
        ({"DEPTH": "x1_0", "WITH_IBN": True}, {"DEPTH": "x0_25", "WITH_IBN": False}, "DEPTH x0_25 WITH_IBN False"),
        ({"DEPTH": "x0_25", "WITH_IBN": False}, {"DEPTH": "x0_25", "WITH_IBN": True}, "WITH_IBN True"),
    ],
)
def test_the_keys_of_an_osnet_are_found(baseline, now, saved, keys):
    words = fitting_keys(baseline("osnet", **now), backbone_state(baseline("osnet", **saved)))
    assert words.replace("MODEL.BACKBONE.", "") == keys


def test_the_backbone_inside_mgres_is_asked(small_config):
    state = torchvision.models.resnet18().state_dict()
    assert fitting_keys(small_config(), state) == "MODEL.BACKBONE.WITH_IBN False"
    assert fitting_keys(small_config(**{"MODEL.BACKBONE.WITH_IBN": "False"}), state) == ""


def test_a_file_of_no_known_backbone(baseline):
    assert fitting_keys(baseline(), {"features.0.weight": torch.zeros(3)}) is None
    assert fitting_keys(baseline(), torchvision.models.vgg11().state_dict()) is None


@pytest.mark.parametrize(
    ("saved", "keys"),
    [
        ({"EMBEDDING_DIM": 16}, "MODEL.HEADS.EMBEDDING_DIM 16"),
        ({"EMBEDDING_DIM": 0}, "MODEL.HEADS.EMBEDDING_DIM 0"),
        ({"POOL_LAYER": "GeneralizedMeanPoolingP"}, "MODEL.HEADS.POOL_LAYER GeneralizedMeanPoolingP"),
        ({}, ""),
    ],
)
def test_the_keys_of_the_heads_are_found(baseline, saved, keys):
    state = build_model(baseline(**saved)).state_dict()
    assert fitting_head_keys(baseline(), state) == keys


def test_the_keys_of_mgres_heads_are_found(small_config, build_small):
    state = build_small(**{"MODEL.HEADS.EMBEDDING_DIM": "4", "MODEL.HEADS.POOL_LAYER": "GeneralizedMeanPoolingP"})
    found = fitting_head_keys(small_config(), state.state_dict())
    assert found == "MODEL.HEADS.POOL_LAYER GeneralizedMeanPoolingP MODEL.HEADS.EMBEDDING_DIM 4"
