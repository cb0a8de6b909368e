"""Multiply-adds at 256 x 128 with ResNet-50-IBN, against sums by hand (in G, from the shapes of the design)."""

import pytest
from mgre.reproduction.cost import Contender, analyse, build_contender

M = 1e-9
PIXELS = {"C1": 64 * 32, "C2": 32 * 16, "C4": 16 * 8}
BOTTLENECK = {c: 2 * c * (c // 4) + 9 * (c // 4) ** 2 for c in (256, 512, 1024, 2048)}
EXPECTED = {
    "backbone.staged": 4.07,  # ResNet-50 with last stride 1, Table 8's way of counting
    "backbone.guidance": (2048 * 256 + 2048 * 512) * PIXELS["C4"] * M,
    "location.stage1": 256 * 64 * 9 * PIXELS["C1"] * M,
    "location.stage2": 512 * 64 * 9 * PIXELS["C2"] * M,
    "location.stage3": 1024 * 64 * 9 * PIXELS["C4"] * M,
    "extraction.stage1": BOTTLENECK[256] * (8 * 8 + 2 * 32 * 16 + 24 * 32) * M,
    "extraction.stage2": BOTTLENECK[512] * 2 * 16 * 16 * M,
    "extraction.stage3": BOTTLENECK[1024] * 16 * 8 * M,
    "extraction.stage4": BOTTLENECK[2048] * 16 * 8 * M,
    "heads.embeddings": 512 * (4 * 256 + 2 * 512 + 1024 + 2048) * M,
}


@pytest.fixture(scope="module")
def measured():
    model = build_contender("configs/MGRe/Base-MGRe.yml", Contender("MGRe"), device="cpu")
    return {name: flops / 1e9 for name, flops in analyse(model, (256, 128)).by_module().items()}


@pytest.mark.parametrize("part", EXPECTED)
def test_each_part_costs_what_its_shapes_say(measured, part):
    # Batch norms, activations and pooling, which the sums leave out, come to a few percent.
    assert measured[part] == pytest.approx(EXPECTED[part], rel=0.04)


def test_the_whole_costs_at_most_5_9_g(measured):
    assert measured[""] == pytest.approx(sum(EXPECTED.values()), rel=0.02)
    assert measured[""] <= 5.9
