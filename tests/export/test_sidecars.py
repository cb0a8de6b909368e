import json

import pytest
import yaml
from mgre.export.sidecars import make_sidecars
from mgre.inference.flavours import FLAVOURS


def make(flavour, **options):
    options = {"size": (256, 128), "dim": 2048, "normalized": False, "precision": "fp32"} | options
    return make_sidecars("out/person.onnx", FLAVOURS[flavour], **options)


def test_boxmots_file():
    (sidecar,) = make("imagenet")
    assert sidecar.path == "out/person.onnx.metadata.json"
    content = json.loads(sidecar.text)
    # Without a name BoxMOT looks for those of its models in the file's; other keys of model_kwargs it refuses.
    assert content["model_name"] == "mgre"
    assert content["model_kwargs"] == {"img_size": [256, 128]}
    assert (content["schema_version"], content["model_kwargs_schema_version"], content["preprocess"]) == (
        1,
        1,
        "resize",
    )


@pytest.mark.parametrize(("flavour", "color_format"), [("raw-rgb", 0), ("raw-bgr", 1)])
@pytest.mark.parametrize(("normalized", "precision"), [(False, "fp16"), (True, "fp32")])
def test_deepstreams_block(flavour, color_format, normalized, precision):
    (sidecar,) = make(flavour, normalized=normalized, precision=precision)
    assert sidecar.path == "out/person.deepstream.yml"
    block = yaml.safe_load(sidecar.text)["ReID"]
    assert block["inferDims"] == [3, 256, 128] and block["reidFeatureSize"] == 2048 and block["inputOrder"] == 0
    # The graph has the mean and the standard deviations; the crop is stretched as in the training.
    assert (block["netScaleFactor"], block["offsets"], block["keepAspc"]) == (1.0, [0.0, 0.0, 0.0], 0)
    assert block["colorFormat"] == color_format
    assert block["addFeatureNormalization"] == int(not normalized)
    assert block["networkMode"] == int(precision == "fp16")
