import dataclasses

import mgre
import numpy as np
import pytest
import torch
from fastreid.data.transforms import build_transforms
from mgre.config import load_config
from mgre.engine.trainer import Trainer
from mgre.errors import WeightsError
from mgre.modeling.final_feature import final_feature
from mgre.reading.images import load_image
from mgre.system.model_files import write_record

# A backbone of four convolutions and a small location module, which are quickly built and saved.
TINY = {
    "MODEL.MGRE.BACKBONE": "build_toy_backbone",
    "MODEL.MGRE.LOCATION.CONV_CHANNELS": "8",
    "MODEL.MGRE.LOCATION.HIDDEN_DIM": "16",
}


def evaluated(model, cfg, paths):
    """The features by the toolbox's transforms, a batch of all images."""
    transform = build_transforms(cfg, is_train=False)
    with torch.no_grad():
        return model({"images": torch.stack([transform(load_image(str(path))) for path in paths])}).numpy()


@pytest.mark.parametrize("config", ["Base-MGRe", "ablations/baseline", "ablations/mgn"])
def test_features_are_those_of_the_evaluation(save_model, small_config, write_crops, config):
    overrides = {"MODEL.BACKBONE.DEPTH": "50x"} if config.endswith("mgn") else {}
    size = {"INPUT.SIZE_TEST": "(96, 32)"}
    model, path = save_model(config, **overrides, **size)
    loaded = mgre.load(path, device="cpu")
    crops = write_crops()
    expected = evaluated(model, small_config(config, **overrides, **size), crops)
    # Batches of two and one give the numbers of one batch to rounding.
    np.testing.assert_allclose(loaded.embed(crops, batch_size=2), expected, rtol=1e-4, atol=1e-5)
    assert loaded.dim == expected.shape[1]


def test_a_center_crop_is_the_toolboxes(save_model, small_config, write_crops):
    keys = {"INPUT.CROP.ENABLED": "True", "INPUT.CROP.SIZE": "[64, 32]", "INPUT.SIZE_TEST": "(71, 37)"}
    model, path = save_model(**keys)
    crops = write_crops()
    expected = evaluated(model, small_config(**keys), crops)
    np.testing.assert_allclose(mgre.load(path, device="cpu").embed(crops), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stages", ["()", "(1,)", "(3,)", "(2, 3)", "(1, 2, 3)"])
@pytest.mark.parametrize("neck", [{}, {"MODEL.HEADS.EMBEDDING_DIM": "0"}, {"MODEL.HEADS.WITH_BNNECK": "False"}])
def test_the_terms_add_up_to_the_feature(save_model, write_crops, stages, neck):
    _, path = save_model(**TINY, **{"MODEL.MGRE.STAGES": stages}, **neck)
    model = mgre.load(path, device="cpu")
    crops = write_crops(3)
    found = model.describe(crops, batch_size=2)
    features = model.embed(crops)
    np.testing.assert_allclose(found.features, features, rtol=1e-4, atol=1e-6)
    sums = {stage: torch.from_numpy(terms.sum(axis=1)) for stage, terms in found.terms.items()}
    np.testing.assert_allclose(final_feature(sums, model.record.stage_weights), features, rtol=1e-4, atol=1e-6)
    for stage, terms in found.terms.items():
        assert terms.shape[:2] == (3, len(model.record.regions[stage]) + 1)
    located = [name for stage, names in model.record.regions.items() if stage != "stage4" for name in names]
    assert list(found.boxes) == located


def test_a_term_depends_on_its_own_region_alone(save_model, write_crops):
    _, path = save_model(**TINY)
    model = mgre.load(path, device="cpu")
    before = model.describe(write_crops(2)).terms
    with torch.no_grad():  # the weights of the second region of stage 1
        weight = model.network.heads.embeddings["stage1"].bottleneck[0].weight
        channels = weight.shape[1] // 4
        weight[:, channels : 2 * channels] *= 2
    after = model.describe(write_crops(2)).terms
    changed = [not np.allclose(before["stage1"][:, i], after["stage1"][:, i]) for i in range(5)]
    assert changed == [False, True, False, False, False]


def test_flip_is_the_mean_of_both(save_model, write_crops):
    model = mgre.load(save_model(**TINY)[1], device="cpu")
    crops = [load_image(str(path)) for path in write_crops(2)]
    mirrored = [crop.transpose(0) for crop in crops]
    expected = (model.embed(crops) + model.embed(mirrored)) / 2
    np.testing.assert_allclose(model.embed(crops, flip=True), expected, rtol=1e-2, atol=1e-4)


def test_a_checkpoint_of_a_training_needs_no_config(toy_run, tmp_path, monkeypatch):
    # The trainer computes steps of the epochs of the warm-up, which a config with both would not load.
    warm_up = ["SOLVER.WARMUP_EPOCHS", "0.5", "SOLVER.MAX_EPOCH", "2"]
    cfg = load_config("configs/MGRe/quickstart.yml", [*toy_run, *warm_up])
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    results = trainer.train()
    monkeypatch.chdir(tmp_path)
    model = mgre.load("out/model_final.pth", device="cpu")
    assert model.record.figures["mAP"] == pytest.approx(results["mAP"])
    assert model.record.trained_on == ["CustomReID"]
    assert str(tmp_path) not in model.record.to_json()
    path = next((tmp_path / "own" / "query").glob("*.jpg"))
    trainer.model.eval()
    np.testing.assert_allclose(model.embed([path]), evaluated(trainer.model, cfg, [path]), rtol=1e-4, atol=1e-5)


def test_a_checkpoint_without_a_record_takes_a_config(save_model, write_crops):
    model, path = save_model()
    torch.save(model.state_dict(), path)
    with pytest.raises(WeightsError, match=r"no record .* --config-file"):
        mgre.load(path)
    keys = ["MODEL.BACKBONE.DEPTH", "18x", "MODEL.HEADS.EMBEDDING_DIM", "8", "INPUT.SIZE_TEST", "(64, 32)"]
    loaded = mgre.load(path, config_file="configs/MGRe/Base-MGRe.yml", overrides=keys, device="cpu")
    assert loaded.embed(write_crops(1)).shape == (1, 32)


def test_the_fingerprint_is_of_what_inference_uses(save_model):
    model, path = save_model(**TINY)
    first = mgre.load(path, device="cpu")
    model.heads.embeddings["stage1"].weight.data += 1  # the classifier
    content = torch.load(path)
    torch.save(content | {"model": model.state_dict()}, path)
    assert mgre.load(path, device="cpu").fingerprint == first.fingerprint
    model.heads.embeddings["stage1"].bottleneck[0].weight.data += 1e-3
    torch.save(content | {"model": model.state_dict()}, path)
    assert mgre.load(path, device="cpu").fingerprint != first.fingerprint


@pytest.mark.parametrize(
    "override", [("MODEL.PIXEL_MEAN", "[1.0, 2.0, 3.0]"), ("MODEL.HEADS.POOL_LAYER", "GlobalMaxPool"), ("SEED", "7")]
)
def test_features_that_an_override_changes_have_another_fingerprint(save_model, write_crops, override):
    _, path = save_model(**TINY)
    first, second = (mgre.load(path, overrides=words, device="cpu") for words in ((), override))
    is_same = np.allclose(first.embed(write_crops(1)), second.embed(write_crops(1)))
    assert is_same == (override[0] == "SEED") == (first.fingerprint == second.fingerprint)


def test_an_override_leaves_what_only_the_training_knows(save_model):
    _, path = save_model(**TINY)
    known = {"versions": {"torch": "2.0"}, "trained_on": ["Own"], "figures": {"mAP": 1.0}, "licence": "none"}
    write_record(path, dataclasses.replace(mgre.load(path).record, **known), path)
    record = mgre.load(path, overrides=["DATASETS.NAMES", "('Market1501',)", "SEED", "7"], device="cpu").record
    assert {name: getattr(record, name) for name in known} == known and "SEED: 7" in record.config
    torch.save(torch.load(path)["model"], path)
    keys = ["MODEL.HEADS.EMBEDDING_DIM", "8", *(word for pair in TINY.items() for word in pair)]
    record = mgre.load(path, config_file="configs/MGRe/Base-MGRe.yml", overrides=keys, device="cpu").record
    assert record.versions == {}
