import pytest
import torch
from fastreid.modeling.backbones.vision_transformer import VisionTransformer, resize_pos_embed
from mgre.errors import WeightsError
from mgre.modeling.positions import fit_positions


def transformer(height: int, width: int, stride: int = 16, channels: int = 4) -> VisionTransformer:
    return VisionTransformer(
        img_size=(height, width), stride_size=stride, embed_dim=channels, depth=1, num_heads=1, mlp_ratio=1.0
    )


def rows_and_columns(rows: int, columns: int) -> torch.Tensor:
    """(1, rows * columns, 4): each token's row and column, 0 at the top or left edge of the grid to 1, and zeros."""
    y, x = torch.meshgrid((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij")
    return torch.stack([y.flatten(), x.flatten(), *[torch.zeros(rows * columns)] * 2], dim=-1)[None]


def fitted(positions: torch.Tensor, model: VisionTransformer, **tokens: torch.Tensor) -> torch.Tensor:
    state = fit_positions({"pos_embed": positions} | tokens, model)
    assert state["pos_embed"].shape == model.pos_embed.shape
    return state["pos_embed"]


TOKEN = torch.full((1, 1, 4), 7.0)


@pytest.mark.parametrize(
    "grid",
    [
        (16, 8),  # 256 x 128
        (21, 10),  # the same, at stride 12 (TransReID)
        (18, 9),  # at stride 14
        (31, 15),  # at stride 8
        (24, 12),  # 384 x 192
        (37, 12),  # 384 x 128 at stride 10
        (14, 14),  # ImageNet's
        (24, 24),
        (11, 11),  # a square of no published size
    ],
)
@pytest.mark.parametrize("size", [(384, 128), (256, 128), (224, 224)])
def test_rows_stay_rows_and_columns_columns(grid, size):
    model = transformer(*size)
    positions = torch.cat([TOKEN, rows_and_columns(*grid)], dim=1)
    found = fitted(positions, model, cls_token=torch.zeros(1, 1, 4))
    assert torch.equal(found[:, :1], TOKEN)
    expected = rows_and_columns(model.patch_embed.num_y, model.patch_embed.num_x)
    # Interpolation is linear, so it differs only beyond the outer tokens' centres.
    assert (found[:, 1:] - expected).abs().mean((0, 1)).max() < 0.02
    inner = (expected[..., :2].sub(0.5).abs() < 0.5 - 1 / (2 * min(grid))).all(-1)
    torch.testing.assert_close(found[:, 1:][inner], expected[inner])


def test_a_square_grid_is_resized_as_by_the_toolbox():
    model = transformer(64, 32)
    positions = torch.randn(1, 1 + 14 * 14, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fitted(positions, model), resize_pos_embed(positions, model.pos_embed, 4, 2))


def test_the_distillation_token_is_left_out():
    model = transformer(64, 32)
    plain = torch.cat([TOKEN, rows_and_columns(16, 8)], dim=1)
    distilled = torch.cat([TOKEN, torch.full((1, 1, 4), 9.0), rows_and_columns(16, 8)], dim=1)
    tokens = {name: torch.zeros(1, 1, 4) for name in ("cls_token", "dist_token")}
    expected = fitted(plain, model)
    torch.testing.assert_close(fitted(distilled, model, **tokens), expected)
    torch.testing.assert_close(fitted(distilled, model), expected)  # in a file without the tokens themselves


def test_positions_of_the_patches_alone():
    model = transformer(64, 32)
    found = fitted(rows_and_columns(16, 8), model, cls_token=torch.zeros(1, 1, 4))
    assert found[0, 0].tolist() == [0, 0, 0, 0]
    torch.testing.assert_close(found[:, 1:], rows_and_columns(4, 2))


def test_an_embedding_that_fits_or_has_another_width_is_left_alone():
    model = transformer(64, 32)
    for positions in (torch.randn(1, 9, 4), torch.randn(1, 197, 6)):
        assert fit_positions({"pos_embed": positions}, model)["pos_embed"] is positions
    assert fit_positions({"norm.weight": TOKEN}, model) == {"norm.weight": TOKEN}


@pytest.mark.parametrize(
    ("num_tokens", "message"),
    [
        (1 + 13 * 9, "has 118 tokens, which are no grid of patches"),
        (1 + 2, "has 3 tokens"),
        (1 + 36, "has 37 tokens, which are (6 x 6 patches or 9 x 4 patches|9 x 4 patches or 6 x 6 patches)"),
    ],
)
def test_a_grid_that_the_number_of_tokens_does_not_tell_is_a_stop(num_tokens, message):
    tokens = {"cls_token": torch.zeros(1, 1, 4), "pos_embed": torch.zeros(1, num_tokens, 4)}
    with pytest.raises(WeightsError, match=f"embedding of own.pth {message}.*: set INPUT.SIZE_TRAIN, INPUT.SIZE_TEST"):
        fit_positions(tokens, transformer(64, 32), source="own.pth")
