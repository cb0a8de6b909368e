import ast

import mgre
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from mgre.export import exporting
from mgre.export.parity import Tolerance
from mgre_cli.export import main


def random_pixels(number, size=(96, 48)):
    return np.random.default_rng(number).integers(0, 256, (number, 3, *size), dtype=np.uint8)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_a_file_gives_the_networks_features(exported, batch):
    pixels = random_pixels(batch)
    network = mgre.load(exported.checkpoint, device="cpu").network
    with torch.no_grad():
        expected = network({"images": torch.from_numpy(pixels).float()}).numpy()
    session = onnxruntime.InferenceSession(exported.onnx, providers=["CPUExecutionProvider"])
    # As Ultralytics feeds it: from 0 to 1.
    (found,) = session.run(None, {"images": pixels.astype(np.float32) / 255})
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_graph_is_what_runtimes_expect(exported):
    model = onnx.load(exported.onnx)
    onnx.checker.check_model(model, full_check=True)
    shapes = [
        (value.name, [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim])
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert shapes == [("images", ["batch", 3, 96, 48]), ("output0", ["batch", 16])]
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert model.ir_version <= 10
    assert "GridSample" not in {node.op_type for node in model.graph.node}


def test_the_entries_suit_ultralytics(exported):
    """It makes an attribute of its own of each entry, and takes a file without this one for a batch of 1."""
    entries = {entry.key: entry.value for entry in onnx.load(exported.onnx).metadata_props}
    assert ast.literal_eval(entries.pop("args")) == {"dynamic": True}
    assert entries and all(key.startswith("mgre.") for key in entries)
    tracker = yaml.safe_load(exported.onnx.with_suffix(".ultralytics.yaml").read_text())
    assert tracker == {"with_reid": True, "model": str(exported.onnx)}


def test_boxes_and_terms_are_in_a_second_file(exported):
    pixels = random_pixels(3)
    expected = mgre.load(exported.checkpoint, device="cpu").describe_pixels(pixels)
    found = mgre.load(exported.onnx).describe_pixels(pixels)
    np.testing.assert_allclose(found.features, expected.features, rtol=1e-4, atol=1e-5)
    assert list(found.boxes) == list(expected.boxes) == ["whole_body"]
    np.testing.assert_allclose(found.boxes["whole_body"], expected.boxes["whole_body"], atol=1e-5)
    assert found.terms.keys() == expected.terms.keys() == {"stage3", "stage4"}
    for stage, terms in expected.terms.items():
        np.testing.assert_allclose(found.terms[stage], terms, rtol=1e-3, atol=1e-4 * np.abs(terms).max())


def test_a_model_that_differs_is_not_written(exported, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(exporting.TOLERANCES, "fp32", Tolerance(cosine=1.1, change=0.01, boxes=1e-4))
    # The export itself is the one of the other tests, which takes seconds.
    monkeypatch.setattr(exporting, "make_onnx", lambda network, size: onnx.load(exported.onnx))
    path = tmp_path / "other.onnx"
    assert main([str(exported.checkpoint), "--input", "unit-rgb", "--output", str(path)]) == 1
    out, err = capsys.readouterr()
    assert "least cosine" in out and "no file was written: batch 1: cosine" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "model.pt"], "has to end in .onnx"),
        (["--precision", "int8"], "needs --calibration"),
        (["--calibration", "crops"], "is for --precision int8"),
        ([], "is there already: add --overwrite"),
        (["--size", "2", "2", "--overwrite"], "--size 2 2"),
    ],
)
def test_bad_options_are_one_line(exported, capsys, words, message):
    before = exported.onnx.stat()
    assert main([str(exported.checkpoint), *words]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert exported.onnx.stat() == before


def test_an_exported_file_is_no_checkpoint(exported, capsys, tmp_path):
    assert main([str(exported.onnx), "--output", str(tmp_path / "again.onnx")]) == 1
    assert "is exported already" in capsys.readouterr().err
