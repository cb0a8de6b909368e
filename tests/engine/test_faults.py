"""Bad days: losses without value, extreme numbers, unreadable images, dying workers."""

import os
import re
import signal

import numpy as np
import pytest
import torch
from fastreid.engine import default_argument_parser
from fastreid.utils.events import EventStorage
from mgre.commands.main import main
from mgre.data import torch_dataset as dataset_module
from mgre.data import unreadable as checks
from mgre.data.keypoints import ImageKeypoints
from mgre.data.torch_dataset import KeypointDataset, ReIDDataset
from mgre.engine.run import run
from mgre.engine.trainer import Trainer
from mgre.errors import DataError
from mgre.geometry import paired_iou
from mgre.modeling.location import LocationModule
from mgre.modeling.losses import location_loss
from mgre.modeling.mgre import MGRe
from mgre.modeling.sampling import sample_boxes
from mgre.reading.images import ImageError
from mgre.regions import get_regions

BASE = "configs/MGRe/Base-MGRe.yml"


@pytest.fixture
def train(toy_run, tmp_path, take_down_logs, capsys):
    """Train two steps an epoch into ``tmp_path / "out"``; the exit status, and what was on stdout and stderr."""

    def call(*overrides: str, flags: tuple[str, ...] = ()) -> tuple[int, str, str]:
        take_down_logs()
        args = default_argument_parser().parse_args(["--config-file", BASE, *flags, *toy_run, *overrides])
        capsys.readouterr()
        status = main(lambda: run(args))
        return status, *capsys.readouterr()

    return call


# -- Numbers --------------------------------------------------------------------------------------


def test_a_loss_without_value_stops_with_names_and_the_state_before(train, tmp_path, monkeypatch):
    forward, calls = MGRe.forward, []

    def broken(model, batch):
        losses = forward(model, batch)
        if model.training:
            calls.append(1)
            if len(calls) == 3:  # in the second epoch; batch norm has seen the batch
                losses["loss_triplet_stage2"] = losses["loss_triplet_stage2"] * float("nan")
        return losses

    undisturbed = train("SOLVER.MAX_EPOCH", "3", "OUTPUT_DIR", str(tmp_path / "straight"))
    monkeypatch.setattr(MGRe, "forward", broken)
    status, out, err = train("SOLVER.MAX_EPOCH", "3")
    assert status == 1
    line = err.strip().splitlines()[-1]
    assert re.match(r"error: loss_triplet_stage2 is nan in step 3, in a batch with .*\.jpg, .*\.jpg and 6 more: ", line)
    assert "model_interrupted.pth" in line
    assert len(set(re.findall(r"bounding_box_train/\S+?\.jpg", out))) >= 4  # the whole batch is in the log
    # What was saved is the state after two steps: from there on it ends as if nothing had happened.
    monkeypatch.setattr(MGRe, "forward", forward)
    resumed = train("SOLVER.MAX_EPOCH", "3", flags=("--resume",))
    assert undisturbed[0] == resumed[0] == 0 and "2 of 6 steps are done" in resumed[1]
    straight, final = (torch.load(tmp_path / n / "model_final.pth", weights_only=True) for n in ("straight", "out"))
    for name, value in straight["model"].items():
        assert torch.equal(final["model"][name], value), name


def test_a_huge_learning_rate_stops_with_whole_weights(train, tmp_path):
    status, _, err = train("SOLVER.BASE_LR", "1e30", "SOLVER.MAX_EPOCH", "4", "TEST.EVAL_PERIOD", "4")
    assert status == 1
    assert re.search(r"^error: .*loss_\w+_stage\d is (nan|inf).*SOLVER.BASE_LR", err, flags=re.MULTILINE)
    saved = torch.load(tmp_path / "out" / "model_interrupted.pth", weights_only=True)
    assert saved["iteration"] == saved["optimizer"]["state"][0]["step"] > 0
    assert all(value.isfinite().all() for name, value in saved["model"].items() if "running" not in name)


def test_weights_without_value_are_not_saved(train, tmp_path, monkeypatch):
    run_step = Trainer.run_step

    def spoil(after: int) -> None:
        def spoiled(trainer: Trainer) -> None:
            run_step(trainer)
            if trainer.iter == after:
                next(trainer.model.parameters()).data[0] = float("inf")

        monkeypatch.setattr(Trainer, "run_step", spoiled)

    spoil(after=1)  # the last step of the first epoch: neither evaluated nor saved
    status, out, err = train("SOLVER.MAX_EPOCH", "3", "SOLVER.CHECKPOINT_PERIOD", "1")
    assert status == 1 and "Start inference" not in out and not list((tmp_path / "out").glob("*.pth"))
    line = err.strip().splitlines()[-1]
    assert line.startswith("error: after step 2 there are weights that are NaN or infinite")
    assert "there is no checkpoint" in line
    spoil(after=2)  # the next step has a loss without value
    status, _, err = train("SOLVER.MAX_EPOCH", "3", "SOLVER.CHECKPOINT_PERIOD", "1")
    assert status == 1 and not (tmp_path / "out" / "model_interrupted.pth").exists()
    line = err.strip().splitlines()[-1]
    assert re.match(r"error: loss_\w+ is nan.* in step 4, .*after step 3 there are weights", line)
    assert f"--resume goes on from '{tmp_path / 'out' / 'model_0000.pth'}'" in line
    monkeypatch.setattr(Trainer, "run_step", run_step)
    status, out, _ = train("SOLVER.MAX_EPOCH", "3", flags=("--resume",))
    assert status == 0 and "2 of 6 steps are done" in out


@pytest.mark.parametrize("mixed_precision", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [0.0, 1.0, 6e4, 1e18])
def test_boxes_stay_numbers_for_any_activations(scale, mixed_precision):
    torch.manual_seed(0)
    module = LocationModule(in_channels=4, regions=get_regions("table1", (1,))["stage1"], conv_channels=8).train()
    torch.nn.init.normal_(module.predictor.weight, std=10.0)
    features = (torch.randn(2, 4, 16, 8) * scale).requires_grad_()
    with torch.autocast("cpu", dtype=mixed_precision, enabled=mixed_precision is not None):
        boxes = module(features)
        samples = sample_boxes(features, boxes[:, :1], [(4, 2)])[0]
        targets = torch.tensor([0.2, 0.2, 0.6, 0.6]).expand_as(boxes)
        loss = location_loss(boxes, targets, torch.ones(boxes.shape[:2], dtype=torch.bool))
    assert boxes.dtype == loss.dtype == torch.float32
    assert boxes.isfinite().all() and samples.isfinite().all() and loss.isfinite()
    sizes = boxes[..., 2:] - boxes[..., :2]
    assert (sizes > 0.01).all() and (sizes < 2.01).all()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in module.parameters())


def test_boxes_outside_and_without_extent():
    features = torch.ones(1, 2, 8, 4, requires_grad=True)
    cases = {
        "outside": (1.5, 1.5, 2.0, 2.0),
        "far outside": (1e6, 1e6, 2e6, 2e6),
        "a point": (0.5, 0.5, 0.5, 0.5),
        "inverted": (0.9, 0.9, 0.1, 0.1),
    }
    for name, box in cases.items():
        boxes = torch.tensor([box], requires_grad=True)
        samples = sample_boxes(features, boxes[:, None], [(4, 2)])[0]
        samples.sum().backward()
        assert samples.isfinite().all() and boxes.grad.isfinite().all() and features.grad.isfinite().all(), name
        if "outside" in name:
            assert not samples.any(), name
        iou = paired_iou(boxes.detach(), boxes.detach())
        assert iou.item() == (0.0 if name in ("a point", "inverted") else 1.0), name


def test_constant_images_give_numbers(build_small):
    model = build_small(**{"MODEL.HEADS.EMBEDDING_DIM": "16", "MODEL.MGRE.LOCATION.REID_GRADIENT": "1.0"}).train()
    for level in (0.0, 255.0):
        batch = {
            "images": torch.full((4, 3, 64, 32), level),
            "targets": torch.tensor([0, 0, 2, 2]),
            "keypoints": torch.zeros(4, 17, 3),  # no region has a box
        }
        with EventStorage(0):
            losses = model(batch)
        model.zero_grad()
        sum(losses.values()).backward()
        assert all(loss.isfinite() for loss in losses.values())
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
        assert all(losses[f"loss_location_stage{i}"].item() == 0 for i in (1, 2, 3))


# -- Unreadable images ----------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path, write_image) -> list[str]:
    return [str(write_image(tmp_path / "images" / f"{i}.jpg")) for i in range(5)]


def test_headers_are_read_once(images, tmp_path, monkeypatch):
    opened = []
    header_fault = checks._header_fault
    monkeypatch.setattr(checks, "_header_fault", lambda path: opened.append(path) or header_fault(path))
    checks.check_headers(images, str(tmp_path / "out"))
    assert sorted(opened) == images
    checks.check_headers(images, str(tmp_path / "out"))
    assert sorted(opened) == images
    with open(images[1], "wb") as file:
        file.write(b"no image")
    os.remove(images[3])
    opened.clear()
    for _ in range(2):  # what is at fault is not noted
        with pytest.raises(DataError, match=r"2 of 5 images cannot be read: '.*1.jpg', '.*3.jpg'; .*UNREADABLE_IMAGES"):
            checks.check_headers(images, str(tmp_path / "out"))
    assert sorted(opened) == [images[1]] * 2 + [images[3]] * 2


def test_a_damaged_cache_is_made_anew(images, tmp_path):
    for content in ("", "[1]", '{"header": 3}', "[" * 10**5):
        (tmp_path / checks.CACHE).write_text(content)
        checks.check_headers(images, str(tmp_path))
        assert images[0] in (tmp_path / checks.CACHE).read_text()


def test_an_unreadable_test_image_stops_before_training(train, tmp_path):
    image = next((tmp_path / "own" / "query").glob("*.jpg"))
    image.write_bytes(b"")
    status, out, err = train()
    assert status == 1 and image.name in err and "Starting training" not in out


@pytest.mark.parametrize(("workers", "option"), [("0", "skip"), ("2", "stop")])
def test_unreadable_images_are_skipped_with_a_count(train, tmp_path, new_processes, workers, option):
    for folder in ("bounding_box_train", "query"):
        image = min((tmp_path / "own" / folder).glob("*.jpg"))
        image.write_bytes(image.read_bytes()[:-100])  # its header is whole
    options = ("DATASETS.UNREADABLE_IMAGES", option, "SOLVER.MAX_EPOCH", "2", "DATALOADER.NUM_WORKERS", workers)
    status, out, _ = train(*options)
    assert status == 0
    assert re.search(r"1 of 16 training images could not be read so far; .*0001_c1", out)
    assert re.search(r"1 of 6 test images cannot be read and are left out: '.*query", out)
    assert "Start inference on 12 images" in out  # one of them is left out
    weights = ("MODEL.WEIGHTS", str(tmp_path / "out" / "model_final.pth"))
    status, _, err = train(*options, *weights, flags=("--eval-only",))
    assert status == (0 if option == "skip" else 1)
    assert bool(re.search(r"^error: Image '\S+query", err, flags=re.MULTILINE)) == (option == "stop")
    # The workers have ended with the training and with the evaluation, whether or not the evaluation has failed.
    assert not new_processes()


def test_an_identity_without_a_readable_image_stops_with_the_state_before(train, tmp_path):
    options = ("SOLVER.MAX_EPOCH", "2")
    assert train(*options, "OUTPUT_DIR", str(tmp_path / "straight"))[0] == 0
    images = {path: path.read_bytes() for path in (tmp_path / "own" / "bounding_box_train").glob("0003_*.jpg")}
    for path, content in images.items():
        path.write_bytes(content[:-100])
    status, _, err = train(*options)
    assert status == 1 and re.search(r"error: Image '\S+/0003_.*the state before this step is in '\S+inter", err)
    for path, content in images.items():
        path.write_bytes(content)
    assert train(*options, flags=("--resume",))[0] == 0
    straight, final = (torch.load(tmp_path / n / "model_final.pth", weights_only=True) for n in ("straight", "out"))
    for name, value in straight["model"].items():
        assert torch.equal(final["model"][name], value), name


def test_the_identitys_next_image_takes_the_place(tmp_path, write_image):
    items = [(str(write_image(tmp_path / f"{i}.jpg")), f"id{i % 2}", "c1") for i in range(4)]
    for broken in (2, 3):
        (tmp_path / f"{broken}.jpg").write_bytes(b"")
    dataset = ReIDDataset(items)
    with pytest.raises(ImageError):
        dataset[2]
    dataset.skip_unreadable = True
    assert [dataset[i]["img_paths"] for i in range(4)] == [items[i][0] for i in (0, 1, 0, 1)]
    assert dataset.unreadable_paths() == [items[2][0], items[3][0]]
    (tmp_path / "0.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match=r"2\.jpg"):
        dataset[2]


def test_key_points_of_another_size_are_not_skipped(tmp_path, write_image):
    path = str(write_image(tmp_path / "0.jpg", (32, 16)))
    keypoints = {path: ImageKeypoints(points=np.zeros((17, 3), np.float32), size=(64, 32))}
    dataset = KeypointDataset([(path, "id", "c1")] * 2, None, keypoints=keypoints, min_score=0.3)
    dataset.skip_unreadable = True
    with pytest.raises(ImageError, match="its key points are for 32 x 64"):
        dataset[0]
    assert dataset.unreadable_paths() == []


@pytest.mark.parametrize("image", ["bounding_box_train/0003_c2", "query/0022_c1"])
def test_a_worker_that_dies_is_reported_with_its_image(train, monkeypatch, image):
    load_image = dataset_module.load_image

    def deadly(path: str):
        if image in path:
            os.kill(os.getpid(), signal.SIGKILL)
        return load_image(path)

    monkeypatch.setattr(dataset_module, "load_image", deadly)
    status, _, err = train("DATALOADER.NUM_WORKERS", "1", "SOLVER.MAX_EPOCH", "3")
    line = err.strip().splitlines()[-1]
    assert status == 1 and line.startswith("error: a process that loads images has died")
    assert image in line and "DATALOADER.NUM_WORKERS" in line
