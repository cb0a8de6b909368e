import numpy as np
import torch
from mgre.visualization import COLORS, contact_sheet, draw_regions
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


def test_sheet_holds_all_images_and_a_legend():
    boxes = {"head": torch.rand(5, 4).sort().values, "whole_body": torch.rand(5, 4).sort().values}
    sheet = contact_sheet(torch.rand(5, 3, 20, 10) * 255, boxes, columns=4, scale=2)
    # Four columns of 20 px and two rows of 40 px, 4 px of padding around each; below them the legend.
    assert sheet.width == 4 * 24 + 4
    assert sheet.height > 2 * 44 + 4
    legend = np.asarray(sheet)[2 * 44 + 4 :].reshape(-1, 3)
    for color in COLORS[:2]:
        assert (legend == ImageColor.getrgb(color)).all(axis=1).any()
