import pytest
import torch
from fastreid.modeling.heads import EmbeddingHead
from mgre.config import load_config
from mgre.config.checks import POOL_LAYERS
from mgre.errors import ConfigError
from mgre.modeling.embedding import MGReHead

CHANNELS = {"stage1": 4, "stage2": 6, "stage3": 8, "stage4": 10}


def make_head(**overrides: str) -> MGReHead:
    base = {"MODEL.DEVICE": "cpu", "MODEL.HEADS.NUM_CLASSES": "5", "MODEL.HEADS.EMBEDDING_DIM": "16"}
    cfg = load_config("configs/MGRe/Base-MGRe.yml", [w for pair in (base | overrides).items() for w in pair])
    cfg.MODEL.MGRE["COMPUTED_CHANNELS"] = CHANNELS
    return MGReHead(cfg)


def make_regions() -> dict[str, list[torch.Tensor]]:
    counts = {"stage1": 4, "stage2": 2, "stage3": 1, "stage4": 1}
    return {s: [torch.rand(3, CHANNELS[s], 4, 2) for _ in range(n)] for s, n in counts.items()}


def test_average_plus_max_then_the_toolboxs_head_on_the_concatenation():
    head, regions = make_head().eval(), make_regions()
    features = head(regions)
    for stage, maps in regions.items():
        pooled = torch.cat([m.mean(dim=(2, 3)) + m.amax(dim=(2, 3)) for m in maps], dim=1)
        convolution, norm = head.embeddings[stage].bottleneck
        expected = torch.nn.functional.batch_norm(
            pooled @ convolution.weight[:, :, 0, 0].T, norm.running_mean, norm.running_var, norm.weight, norm.bias
        )
        torch.testing.assert_close(features[stage], expected)
        assert features[stage].shape == (3, 16)


def test_training_outputs_are_the_toolboxs():
    head, regions, targets = make_head().train(), make_regions(), torch.tensor([0, 1, 4])
    outputs = head(regions, targets)
    for stage, maps in regions.items():
        peer = head.embeddings[stage]
        assert type(peer) is EmbeddingHead
        pooled = torch.cat([m.mean(dim=(2, 3), keepdim=True) + m.amax(dim=(2, 3), keepdim=True) for m in maps], dim=1)
        expected = peer(pooled, targets)
        assert outputs[stage].keys() == expected.keys()
        for key in expected:
            torch.testing.assert_close(outputs[stage][key], expected[key])
        # The triplet loss takes the pooled vector (NECK_FEAT before).
        assert outputs[stage]["features"].shape == (3, len(maps) * CHANNELS[stage])


@pytest.mark.parametrize("pool", POOL_LAYERS)
def test_every_pooling_layer_that_fits_has_its_own_parameters_for_each_region(pool):
    head = make_head(**{"MODEL.HEADS.POOL_LAYER": pool}).eval()
    assert all(f.shape == (3, 16) and f.isfinite().all() for f in head(make_regions()).values())
    if pool == "GeneralizedMeanPoolingP":
        assert len(list(head.pools.parameters())) == 8


def test_without_the_stages_channels_it_says_which_backbone_leaves_them():
    cfg = load_config("configs/MGRe/Base-MGRe.yml", ["MODEL.DEVICE", "cpu"])
    with pytest.raises(ConfigError, match="build_mgre_backbone"):
        MGReHead(cfg)
