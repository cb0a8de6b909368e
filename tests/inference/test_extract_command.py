"""mgre extract, as a user calls it."""

import mgre
import numpy as np
import pytest
import torch
from mgre_cli import extract as cli
from mgre_cli.extract import parse_args
from mgre_cli.main import main


@pytest.fixture
def model(save_model):
    return str(save_model()[1])


def test_what_was_done_and_what_was_not(model, tmp_path, write_crops, write_image, capsys):
    crops = write_crops(3)
    crops[1].write_bytes(b"")
    write_image(tmp_path / "crops" / "a\x1b[2J.png", (20, 3))
    output = str(tmp_path / "f.npz")
    words = ["extract", str(tmp_path / "crops"), "--model", model, "--output", output, "--device", "cpu"]
    assert main([*words, "--batch-size", "2"]) == 3
    said = capsys.readouterr()
    assert said.out.startswith("3 of 4 images, ") and said.out.endswith(f" a second: {output}\n")
    assert "1 images were skipped:" in said.err and "1.png' is empty (0 bytes)" in said.err
    assert "a\\x1b[2J.png'" in said.err and "\x1b[2J" not in said.err
    with np.load(output) as found:
        assert found["paths"].tolist() == [str(crops[0]), str(crops[2]), str(tmp_path / "crops" / "a\x1b[2J.png")]
        expected = mgre.load(model, device="cpu").embed(found["paths"].tolist())
        np.testing.assert_allclose(found["features"], expected, rtol=1e-4, atol=1e-5)
    assert main(words) == 1
    assert f"error: '{output}' is there already, of this model" in capsys.readouterr().err


def test_mixed_precision_gives_nearly_the_same(model, tmp_path, write_crops):
    write_crops(3)
    features = []
    for name, words in (("a", []), ("b", ["--amp"])):
        output = str(tmp_path / f"{name}.npz")
        arguments = ["extract", str(tmp_path / "crops"), "--model", model, "--output", output, "--device", "cpu"]
        assert main([*arguments, *words]) == 0
        features.append(np.load(output)["features"])
    plain, mixed = features
    assert not np.array_equal(plain, mixed)
    assert np.linalg.norm(plain - mixed) < 0.05 * np.linalg.norm(plain)


def test_ctrl_c_says_how_to_go_on(monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "start", stop)
    assert main(["extract", "x", "--model", "m.pth"]) == 130
    assert capsys.readouterr().err == "\nstopped; the same command goes on from here\n"


def test_a_checkpoint_without_a_record_takes_a_config(model, tmp_path, write_crops):
    write_crops(2)
    weights = str(tmp_path / "old.pth")
    torch.save(torch.load(model)["model"], weights)
    keys = ["MODEL.BACKBONE.DEPTH", "18x", "MODEL.HEADS.EMBEDDING_DIM", "8", "INPUT.SIZE_TEST", "(64, 32)"]
    config = ["--config-file", "configs/MGRe/Base-MGRe.yml", "--opts", *keys]
    features = []
    for name, words in (("new", [model]), ("old", [weights, *config])):
        output = str(tmp_path / f"{name}.npz")
        crops = str(tmp_path / "crops")
        assert main(["extract", crops, "--output", output, "--device", "cpu", "--model", *words]) == 0
        features.append(np.load(output)["features"])
    np.testing.assert_array_equal(*features)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "m.pth"], "name images and folders of them, or else a --csv"),
        (["x", "--csv", "b.csv", "--model", "m.pth"], "name images and folders of them, or else a --csv"),
        (["x", "--video", "v.mp4", "--model", "m.pth"], "--video needs the boxes of its frames: --csv boxes.csv"),
        (["x"], "required: --model"),
        (["x", "--model", "m.pth", "--flip", "--regions"], "not allowed with argument --flip"),
    ],
)
def test_options_that_do_not_go_together(words, message, capsys):
    with pytest.raises(SystemExit) as caught:
        parse_args(words)
    assert caught.value.code == 2 and message in capsys.readouterr().err
