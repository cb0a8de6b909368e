import pytest
import torch
from mgre.errors import ConfigError
from mgre.modeling.feature_extraction import FeatureExtractionModule


def test_each_region_has_its_own_block_of_the_same_channels():
    module = FeatureExtractionModule(channels=16, num_regions=2).eval()
    region = torch.randn(2, 16, 4, 3)
    first, second = module([region, region])
    assert first.shape == second.shape == region.shape
    assert not torch.equal(first, second)  # no shared weights
    # Bottleneck 16 -> 4 -> 4 -> 16 with batch norms, by hand.
    parameters = 16 * 4 + 4 * 4 * 9 + 4 * 16 + 2 * (4 + 4 + 16)
    assert sum(p.numel() for p in module.parameters()) == 2 * parameters


def test_block_is_residual():
    module = FeatureExtractionModule(channels=8, num_regions=1).eval()
    torch.nn.init.zeros_(module.blocks[0].bn3.weight)
    region = torch.randn(1, 8, 2, 2)
    torch.testing.assert_close(module([region])[0], region.relu())


def test_channels_that_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match=r"18 channels.*multiple of 4"):
        FeatureExtractionModule(channels=18, num_regions=1)
