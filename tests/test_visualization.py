import numpy as np
import torch
from mgre.visualization import COLORS, LEGEND_WIDTH, contact_sheet, draw_regions, draw_skeleton
from PIL import ImageColor


def test_a_box_is_drawn_where_it_is_in_its_colour():
    drawn = draw_regions(torch.zeros(3, 20, 10), torch.tensor([[0.2, 0.1, 0.8, 0.5]]), scale=4)
    assert drawn.shape == (3, 80, 40) and drawn.dtype == torch.uint8
    color = torch.tensor(ImageColor.getrgb(COLORS[0]))
    rows, columns = (drawn == color[:, None, None]).all(dim=0).nonzero().unbind(dim=1)
    # (0.2, 0.1, 0.8, 0.5) of 40 x 80 pixels, with lines two pixels wide.
    bounds = [columns.min(), rows.min(), columns.max(), rows.max()]
    np.testing.assert_allclose(bounds, [8, 8, 32, 40], atol=1)
    assert not (drawn[:, 20, 20]).any()  # the inside stays


def test_a_box_beyond_the_image_is_cut_off():
    drawn = draw_regions(torch.zeros(3, 20, 10), torch.tensor([[-0.5, -0.5, 1.5, 1.5]]), scale=2)
    assert drawn[0, 0, 10] > 0 and drawn[0, 39, 10] > 0


def test_a_box_without_an_area_is_left_out_and_the_others_keep_their_colours():
    boxes = torch.tensor([[0.0, 0, 0, 0], [0.2, 0.1, 0.8, 0.5]])
    drawn = draw_regions(torch.zeros(3, 20, 10), boxes, scale=4)
    colors = {tuple(pixel) for pixel in drawn.flatten(1).T.tolist()}
    assert colors == {(0, 0, 0), ImageColor.getrgb(COLORS[1])}
    assert not draw_regions(torch.zeros(3, 20, 10), boxes[:1], scale=4).any()


def test_a_box_at_the_place_of_another_is_drawn_inside_it():
    boxes = torch.tensor([[0.2, 0.1, 0.8, 0.5], [0.0, 0.0, 0.1, 0.1], [0.2, 0.1, 0.8, 0.5]])
    drawn = draw_regions(torch.zeros(3, 20, 10), boxes, scale=10)
    rows = [(drawn == torch.tensor(ImageColor.getrgb(COLORS[i]))[:, None, None]).all(dim=0)[:, 50] for i in (0, 2)]
    # The upper edge at 0.1 of 200 pixels, two pixels wide, and the other one two pixels below.
    np.testing.assert_allclose([row.nonzero().min() for row in rows], [20, 22], atol=1)
    assert rows[1].nonzero().min() - rows[0].nonzero().min() == 2


def test_the_trusted_points_and_limbs_of_a_skeleton_are_drawn():
    keypoints = torch.zeros(17, 3)
    keypoints[5] = torch.tensor([0.25, 0.5, 1])  # left shoulder
    keypoints[7] = torch.tensor([0.75, 0.5, 1])  # left elbow
    keypoints[6] = torch.tensor([0.5, 0.1, 0])  # right shoulder: not trusted
    drawn = draw_skeleton(torch.zeros(3, 40, 80, dtype=torch.uint8), keypoints)
    assert drawn[:, 20, 20].all() and drawn[:, 20, 60].all() and drawn[:, 20, 40].all()
    assert not drawn[:, :16].any()


def test_sheet_holds_all_tiles_and_a_legend():
    tiles = [torch.full((3, height, 20), 100, dtype=torch.uint8) for height in (40, 40, 30, 40, 40)]
    sheet = contact_sheet(tiles, ["head", "whole_body"], columns=4)
    # Four columns of 20 px and two rows of 40 px, 4 px of padding around each; below them the legend, which is wider.
    assert sheet.width == 4 * LEGEND_WIDTH > 4 * 24 + 4
    assert sheet.height > 2 * 44 + 4
    pixels = np.asarray(sheet)
    assert (pixels[: 2 * 44 + 4] == 100).all(axis=2).sum() == 4 * 40 * 20 + 30 * 20
    legend = pixels[2 * 44 + 4 :].reshape(-1, 3)
    for color in COLORS[:2]:
        assert (legend == ImageColor.getrgb(color)).all(axis=1).any()
