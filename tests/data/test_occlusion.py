import pytest
import torch
from mgre.config import load_config
from mgre.data import build_test_loader, build_train_loader, occlusion
from mgre.data.occlusion import Occlusion, draw_box
from mgre.errors import ConfigError
from mgre.evaluation.evaluator import RegionIoU

NAMES = [f"query/{number:04d}_c1s1_000001_00.jpg" for number in range(4000)]


@pytest.fixture
def load(small_run):
    """The small run's config, occluded, with overrides; ``config`` is the file."""

    def load_occluded(*overrides, config="Base-MGRe"):
        occluded = ["TEST.OCCLUSION.ENABLED", "True", *overrides]
        return load_config(f"configs/MGRe/{config}.yml", [*small_run, *occluded])

    return load_occluded


def images_by_path(cfg):
    loader, _ = build_test_loader(cfg, "CustomReID")
    return {path: image for batch in loader for path, image in zip(batch["img_paths"], batch["images"], strict=True)}


def assert_same(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(left[path], right[path]) for path in left)


def test_about_half_of_the_images_by_boxes_of_the_published_size():
    boxes = [draw_box(name, 0.5) for name in NAMES]
    drawn = [box for box in boxes if box is not None]
    assert len(drawn) / len(boxes) == pytest.approx(0.5, abs=0.03)  # 3.8 standard deviations
    areas = [height * width for _, _, height, width in drawn]
    aspects = [2 * height / width for _, _, height, width in drawn]  # of an image twice as high as wide
    assert 0.02 <= min(areas) < 0.03 and 0.38 < max(areas) <= 0.4
    assert 0.3 <= min(aspects) < 0.35 and 3 < max(aspects) <= 1 / 0.3
    assert all(top >= 0 and left >= 0 and top + height <= 1 and left + width <= 1 for top, left, height, width in drawn)
    assert [draw_box(name, 0.0) for name in NAMES[:50]] == [None] * 50
    assert None not in [draw_box(name, 1.0) for name in NAMES[:50]]


def test_the_rectangle_and_its_key_points_by_hand(monkeypatch):
    """Rows 2 to 4 and columns 1 to 2 of 8 x 4 pixels."""
    monkeypatch.setattr(occlusion, "draw_box", lambda key, prob: (0.25, 0.25, 0.375, 0.5))
    keypoints = torch.tensor([[0.0, 0.0, 1.0], [0.25, 0.25, 1.0], [0.5, 0.5, 1.0], [0.76, 0.5, 1.0], [0.5, 0.63, 0.0]])
    sample = {"images": torch.zeros(3, 8, 4), "keypoints": keypoints}
    occlude = Occlusion(folder="/set", prob=0.5, seed=0, value=[1.0, 2.0, 3.0])
    occluded = occlude("/set/query/1.jpg", sample)
    expected = torch.tensor([[0, 0, 0, 0]] * 2 + [[0, 1, 1, 0]] * 3 + [[0, 0, 0, 0]] * 3)
    for channel, value in enumerate((1.0, 2.0, 3.0)):
        assert torch.equal(occluded["images"][channel], value * expected)
    assert occluded["keypoints"][:, 2].tolist() == [1, 0, 0, 1, 0]
    assert torch.equal(occluded["keypoints"][:, :2], keypoints[:, :2])
    assert not sample["images"].any() and sample["keypoints"][1, 2] == 1  # what came in is as it was
    assert set(occlude("/set/1.jpg", {"images": torch.zeros(3, 8, 4)})) == {"images"}


@pytest.mark.parametrize("size", [(256, 128), (384, 128), (64, 32)])
def test_the_box_is_the_same_at_every_input_size(size):
    occlude = Occlusion(folder="/set", prob=1.0, seed=0, value=[9.0] * 3)
    for name in NAMES[:20]:
        erased = (occlude(f"/set/{name}", {"images": torch.zeros(3, *size)})["images"][0] == 9).nonzero()
        top, left, height, width = draw_box(f"0 {name}", 1.0)
        found = [*erased.min(dim=0).values.tolist(), *(erased.max(dim=0).values + 1).tolist()]
        box = [top * size[0], left * size[1], (top + height) * size[0], (left + width) * size[1]]
        assert found == pytest.approx(box, abs=0.5001)


def test_the_box_depends_on_the_name_in_the_folder_and_the_seed_alone():
    def erased(folder, name, seed):
        occlude = Occlusion(folder=folder, prob=1.0, seed=seed, value=[9.0] * 3)
        return occlude(f"{folder}/{name}", {"images": torch.zeros(3, 64, 32)})["images"]

    torch.manual_seed(0)
    first = erased("/here", "query/1.jpg", 0)
    state = torch.get_rng_state()
    assert torch.equal(first, erased("/there/and/there", "query/1.jpg", 0))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, erased("/here", "query/2.jpg", 0))
    assert not torch.equal(first, erased("/here", "query/1.jpg", 1))


def test_the_box_of_a_name_is_the_same_for_ever():
    """As random.Random drew it when this was written; Python promises the same numbers for the same text."""
    box = draw_box("0 query/0001_c1s1_000001_00.jpg", 1.0)
    assert box == pytest.approx(
        (0.008599674827759309, 0.21540925518069304, 0.4517559808759667, 0.296760212245296), abs=1e-12
    )


def test_every_run_erases_the_same(load):
    once = images_by_path(load())
    assert_same(once, images_by_path(load()))
    assert_same(once, images_by_path(load("DATALOADER.NUM_WORKERS", "2", "TEST.IMS_PER_BATCH", "3", "SEED", "5")))
    baseline = images_by_path(load(config="quickstart-baseline"))  # without key points
    assert_same(once, baseline)


def test_only_test_images_are_occluded(load):
    clean = images_by_path(load("TEST.OCCLUSION.ENABLED", "False"))
    occluded = images_by_path(load("TEST.OCCLUSION.PROB", "1.0", "INPUT.REA.VALUE", "[300., 301., 302.]"))
    for path, image in occluded.items():
        erased = image[0] == 300
        assert erased.any() and not erased.all()
        assert torch.equal(image[:, ~erased], clean[path][:, ~erased])
        assert torch.equal(image[:, erased], torch.tensor([[300.0], [301.0], [302.0]]).expand(3, int(erased.sum())))
    assert build_train_loader(load("TEST.OCCLUSION.PROB", "1.0")).dataset.occlusion is None


def test_hidden_key_points_do_not_count_as_regions(load, build_small):
    def iou(*overrides):
        model = build_small().eval()
        overlap = RegionIoU(model)
        for batch in build_test_loader(load(*overrides), "CustomReID")[0]:
            overlap.add(model.predict_boxes(batch), batch["keypoints"])
        return overlap.means()

    clean, occluded = iou("TEST.OCCLUSION.ENABLED", "False"), iou("TEST.OCCLUSION.PROB", "1.0")
    assert clean.keys() == occluded.keys() and clean != occluded


def test_a_wrong_probability(load):
    with pytest.raises(ConfigError, match=r"TEST.OCCLUSION.PROB is 1.5; allowed: a number from 0 to 1"):
        load("TEST.OCCLUSION.PROB", "1.5")
