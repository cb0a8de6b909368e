"""What bad input gets: one clear line on stderr, exit status 1, nothing lost."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fastreid.engine import default_argument_parser
from mgre.commands.main import main
from mgre.engine.run import run

BASE = "configs/MGRe/Base-MGRe.yml"
RESNET = ("MODEL.MGRE.BACKBONE", "build_resnet_backbone", "MODEL.BACKBONE.DEPTH", "18x")


@pytest.fixture
def fails_with(capsys, tiny_run):
    """Run train_net with the tiny run's overrides and more; the one line it ends with."""

    def call(*arguments: str, config: str = BASE, flags: tuple[str, ...] = ()) -> str:
        args = default_argument_parser().parse_args(["--config-file", config, *flags, *tiny_run, *arguments])
        capsys.readouterr()
        status = main(lambda: run(args))
        errors = capsys.readouterr().err.strip().splitlines()
        lines = [line for line in errors if line.startswith("error: ")]
        assert status == 1
        assert len(lines) == 1 and errors[-1] == lines[0]
        assert not any("Traceback" in line for line in errors), "\n".join(errors)
        return lines[0]

    return call


@pytest.fixture
def own(tmp_path) -> Path:
    return tmp_path / "own"


def damage_keypoints(own: Path, change) -> None:
    content = json.loads((own / "keypoints.json").read_text())
    change(content)
    (own / "keypoints.json").write_text(json.dumps(content))


# -- data set folders -----------------------------------------------------------------------------


def test_a_missing_folder(fails_with, tmp_path):
    line = fails_with("DATASETS.CUSTOM.ROOT", str(tmp_path / "nowhere"))
    assert "nowhere" in line and "DATASETS.CUSTOM.ROOT" in line


def test_a_missing_set_of_the_paper_says_where_it_was_looked_for(fails_with, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "data"))
    line = fails_with("DATASETS.NAMES", "('Market1501',)")
    assert "Market1501" in line and str(tmp_path / "data") in line and "FASTREID_DATASETS" in line


@pytest.mark.parametrize("variable", [None, "elsewhere"])
def test_where_a_set_was_looked_for_comes_first(fails_with, tmp_path, monkeypatch, variable):
    monkeypatch.delenv("FASTREID_DATASETS", raising=False)
    folder, given = Path("datasets").absolute(), "./datasets: FASTREID_DATASETS is not set"
    if variable:
        folder, given = tmp_path / variable, "FASTREID_DATASETS"
        monkeypatch.setenv("FASTREID_DATASETS", str(folder))
    line = fails_with("DATASETS.NAMES", "('DukeMTMC',)")
    assert f"DukeMTMC cannot be read from '{folder}' ({given}), where it looked for DukeMTMC-reID/" in line


def test_a_missing_gpu_does_not_hide_missing_data(fails_with, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    line = fails_with("MODEL.DEVICE", "cuda", "DATASETS.CUSTOM.ROOT", str(tmp_path / "nowhere"))
    assert "MODEL.DEVICE is 'cuda'" in line and "DATASETS.CUSTOM.ROOT" in line and "nowhere" in line


def test_a_wrong_layout(fails_with, own):
    (own / "query").rename(own / "queries")
    assert "query" in fails_with()


# -- key points -----------------------------------------------------------------------------------


def test_no_key_point_file(fails_with, own):
    (own / "keypoints.json").unlink()
    line = fails_with()
    assert "keypoints.json" in line and "DATASETS.KEYPOINTS" in line and "MODEL.MGRE.LOCATION.LOSS_WEIGHT 0" in line


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0]["keypoints"].pop(), "51"),
        (lambda c: c["annotations"][0]["keypoints"].__setitem__(0, float("nan")), "finite"),
        (lambda c: [a["keypoints"].__setitem__(0, 500.0) for a in c["annotations"]], "outside"),
        (lambda c: c["annotations"][0].__setitem__("image_id", 999), "999"),
        (lambda c: c.pop("images"), "images"),
        (lambda c: [i.__setitem__("file_name", f"other/{i['id']}.png") for i in c["images"]], "other/"),
    ],
)
def test_damaged_key_points(fails_with, own, change, message):
    damage_keypoints(own, change)
    line = fails_with()
    assert "keypoints.json" in line and message in line.lower()


def test_key_points_that_are_no_json(fails_with, own):
    (own / "keypoints.json").write_text('{"images": [')
    assert "keypoints.json" in fails_with()


def test_most_images_without_key_points(fails_with, own):
    def keep_two(content):
        training = {i["id"] for i in content["images"] if "train" in i["file_name"]}
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] in training][:2]

    damage_keypoints(own, keep_two)
    assert "DATASETS.ALLOW_MISSING_KEYPOINTS" in fails_with()


# -- images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["bounding_box_train", "query"])
@pytest.mark.parametrize("size", [0, 300])
@pytest.mark.parametrize("workers", ["0", "2"])
def test_an_empty_or_truncated_image_is_named(fails_with, own, split, size, workers):
    for image in sorted((own / split).glob("*.jpg"))[:8]:
        image.write_bytes(image.read_bytes()[:size])
    line = fails_with("DATALOADER.NUM_WORKERS", workers)
    assert split in line and ".jpg" in line


# -- config ---------------------------------------------------------------------------------------


def test_a_missing_config_file(fails_with):
    assert "'configs/MGRe/markt.yml' does not exist" in fails_with(config="configs/MGRe/markt.yml")


def test_an_unknown_key_with_the_nearest_known_one(fails_with):
    assert "nearest: MODEL.MGRE.STAGES" in fails_with("MODEL.MGRE.STAGE", "(1,)")


def test_an_unknown_name_with_the_known_ones(fails_with):
    assert "known: " in fails_with("MODEL.MGRE.BACKBONE", "build_resnet")


def test_a_value_out_of_range(fails_with):
    assert "MODEL.MGRE.LAMBDA is -1.0; allowed: 0 or more" in fails_with("MODEL.MGRE.LAMBDA", "-1.0")


def test_cuda_where_there_is_none(fails_with, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "MODEL.DEVICE cpu" in fails_with("MODEL.DEVICE", "cuda")


def test_an_augmentation_that_key_points_cannot_follow(fails_with):
    assert "INPUT.AUTOAUG.ENABLED" in fails_with("INPUT.AUTOAUG.ENABLED", "True")


def test_fewer_identities_than_a_batch_needs(fails_with):
    line = fails_with("SOLVER.IMS_PER_BATCH", "32")
    assert "16" in line and "8" in line and "SOLVER.IMS_PER_BATCH" in line


def test_an_output_folder_that_cannot_be_written(fails_with, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    line = fails_with("OUTPUT_DIR", str(tmp_path / "file" / "out"))
    assert "OUTPUT_DIR" in line and str(tmp_path / "file") in line
    assert (tmp_path / "file").read_text() == "not a folder"


# -- weights --------------------------------------------------------------------------------------


@pytest.fixture
def trained(tiny_run, tmp_path, take_down_logs) -> Path:
    assert main(lambda: run(default_argument_parser().parse_args(["--config-file", BASE, *tiny_run]))) == 0
    take_down_logs()  # they write to the streams of this fixture, which end with it
    return tmp_path / "out" / "model_final.pth"


def test_evaluation_without_weights(fails_with):
    assert "--eval-only needs MODEL.WEIGHTS" in fails_with(flags=("--eval-only",))


def test_weights_that_do_not_exist(fails_with, tmp_path):
    line = fails_with("MODEL.WEIGHTS", str(tmp_path / "none.pth"), flags=("--eval-only",))
    assert "none.pth" in line


def test_weights_of_another_architecture(fails_with, trained):
    line = fails_with("MODEL.WEIGHTS", str(trained), "MODEL.BACKBONE.DEPTH", "x0_5", flags=("--eval-only",))
    assert "another architecture" in line and "backbone." in line


def test_a_checkpoint_cut_short(fails_with, trained):
    content = trained.read_bytes()
    for path in trained.parent.glob("*.pth"):  # a whole one would be resumed from
        path.write_bytes(content[: len(content) // 2])
    for flags, options in (
        (("--eval-only",), ("MODEL.WEIGHTS", str(trained))),
        (("--resume",), ("SOLVER.MAX_EPOCH", "2")),
    ):
        assert "is damaged or cut short" in fails_with(*options, flags=flags)
    assert trained.stat().st_size == len(content) // 2  # it is still there to be looked at


def test_pretrained_weights_that_do_not_fit(fails_with, tmp_path):
    torch.save({"state_dict": {"fc.weight": torch.zeros(3, 3)}}, tmp_path / "other.pth")
    line = fails_with(
        *RESNET, "MODEL.BACKBONE.PRETRAIN", "True", "MODEL.BACKBONE.PRETRAIN_PATH", str(tmp_path / "other.pth")
    )
    assert "other.pth" in line


def test_pretrained_weights_that_are_no_weights(fails_with, tmp_path):
    np.save(tmp_path / "other.npy", np.zeros(3))
    line = fails_with(
        *RESNET, "MODEL.BACKBONE.PRETRAIN", "True", "MODEL.BACKBONE.PRETRAIN_PATH", str(tmp_path / "other.npy")
    )
    assert "other.npy" in line


def test_resuming_with_another_model(fails_with, trained):
    line = fails_with("SOLVER.MAX_EPOCH", "2", "MODEL.HEADS.EMBEDDING_DIM", "256", flags=("--resume",))
    assert "of another model or data set" in line and "OUTPUT_DIR" in line


def test_evaluating_with_fewer_stages(fails_with, trained):
    line = fails_with("MODEL.WEIGHTS", str(trained), "MODEL.MGRE.STAGES", "(3,)", flags=("--eval-only",))
    assert "another architecture" in line


def test_a_depth_the_backbone_does_not_have(fails_with):
    assert "MODEL.BACKBONE.DEPTH is '152x'" in fails_with(*RESNET, "MODEL.BACKBONE.DEPTH", "152x")
