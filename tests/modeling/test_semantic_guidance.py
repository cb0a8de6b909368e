import torch
import torch.nn.functional as F
from mgre.modeling.semantic_guidance import SemanticGuidance

CHANNELS = {"stage1": 4, "stage2": 6, "stage3": 8, "stage4": 10}


def make_maps() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = {"stage1": (16, 8), "stage2": (8, 4), "stage3": (4, 2), "stage4": (4, 2)}
    return {s: torch.randn(2, CHANNELS[s], *sizes[s], generator=generator).double() for s in sizes}


def test_convolving_before_the_upsampling_gives_the_papers_order():
    maps = make_maps()
    guidance = SemanticGuidance(channels=CHANNELS, stages=("stage1", "stage2")).double()
    guided = guidance(maps)
    for stage in ("stage1", "stage2"):
        # The paper's order: upsample C4 first, then the 1 x 1 convolution, written as a sum over channels.
        large = F.interpolate(maps["stage4"], size=maps[stage].shape[-2:], mode="bilinear", align_corners=False)
        kernel = guidance.project[stage].weight[:, :, 0, 0]
        expected = maps[stage] + torch.einsum("oc,bchw->bohw", kernel, large)
        torch.testing.assert_close(guided[stage], expected, rtol=0, atol=1e-12)


def test_unguided_maps_pass_and_inputs_stay():
    maps = make_maps()
    before = {s: m.clone() for s, m in maps.items()}
    guided = SemanticGuidance(channels=CHANNELS, stages=("stage2",)).double()(maps)
    assert all(guided[s] is maps[s] for s in ("stage1", "stage3", "stage4"))
    assert all(torch.equal(maps[s], before[s]) for s in maps)
    assert not torch.equal(guided["stage2"], maps["stage2"])
