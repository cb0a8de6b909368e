"""The ablations of Tables 4, 5 and 7: what each model holds and computes."""

import pytest
import torch
from fastreid.modeling import build_model
from fvcore.nn import FlopCountAnalysis
from mgre.config import load_config
from mgre.errors import ConfigError, DataError
from mgre.geometry import boxes_from_keypoints
from torch import nn

ALL, FIRST = ["stage1", "stage2", "stage3", "stage4"], ["stage1", "stage2", "stage3"]
# By ablation: the stages with location, sampling and extraction modules, with embeddings, and the guided maps.
MODULES = {
    "baseline": ([], [], [], ["stage4"], []),
    "stages1": (["stage1"], ["stage1"], ["stage1", "stage4"], ["stage1", "stage4"], ["stage1"]),
    "stages2": (["stage2"], ["stage2"], ["stage2", "stage4"], ["stage2", "stage4"], ["stage2"]),
    "stages3": (["stage3"], ["stage3"], ["stage3", "stage4"], ["stage3", "stage4"], []),
    "stages23": (FIRST[1:], FIRST[1:], ALL[1:], ALL[1:], ["stage2"]),
    "single-grained-features": (FIRST, FIRST, ALL, ALL, []),
    "single-grained-regions": ([], FIRST, ALL, ALL, ["stage1", "stage2"]),
    "baseline-joint": (FIRST, [], [], ["stage4"], ["stage1", "stage2"]),
    "cut-gradient": (FIRST, FIRST, ALL, ALL, ["stage1", "stage2"]),
    "without-joint": ([], FIRST, ALL, ALL, ["stage1", "stage2"]),
}


@pytest.fixture
def build_ablation(build_small):
    def build(name: str, **overrides: str) -> nn.Module:
        return build_small(f"ablations/{name}", **overrides)

    return build


@pytest.mark.parametrize("name", MODULES)
def test_holds_exactly_the_modules_of_the_ablation(build_ablation, name):
    model = build_ablation(name)
    guidance = model.backbone.guidance
    found = (
        list(model.location),
        list(model.sampling),
        [stage for stage, module in model.extraction.items() if not isinstance(module, nn.Identity)],
        list(model.heads.embeddings),
        list(guidance.project) if guidance else [],
    )
    assert found == MODULES[name]


@pytest.mark.parametrize("name", MODULES)
def test_every_parameter_is_trained_and_the_feature_has_a_part_for_each_stage(
    build_ablation, make_batch, storage, name
):
    model = build_ablation(name, **{"MODEL.HEADS.EMBEDDING_DIM": "8"}).train()
    losses = model(make_batch())
    sum(losses.values()).backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert {n for n in losses if "location" in n} == {f"loss_location_{stage}" for stage in MODULES[name][0]}
    assert model.eval()(make_batch()).shape == (6, 8 * len(MODULES[name][3]))


def test_baseline_is_the_toolboxs(make_batch):
    common = {"MODEL.DEVICE": "cpu", "MODEL.BACKBONE.DEPTH": "18x", "MODEL.BACKBONE.FEAT_DIM": "512"}
    common |= {"MODEL.BACKBONE.PRETRAIN": "False", "MODEL.HEADS.NUM_CLASSES": "3"}
    toolbox = {"MODEL.META_ARCHITECTURE": "Baseline", "MODEL.BACKBONE.NAME": "build_resnet_backbone"}
    toolbox |= {"MODEL.HEADS.NAME": "EmbeddingHead"}

    def build(overrides: dict[str, str]) -> nn.Module:
        words = [word for pair in overrides.items() for word in pair]
        return build_model(load_config("configs/MGRe/ablations/baseline.yml", words)).eval()

    ours, theirs = build(common), build(common | toolbox)
    ours.backbone.staged.bottom_up.load_state_dict(theirs.backbone.state_dict())
    ours.heads.embeddings["stage4"].load_state_dict(theirs.heads.state_dict())
    with torch.no_grad():
        expected = nn.functional.normalize(theirs(make_batch()))
        found = ours(make_batch())
    torch.testing.assert_close(nn.functional.normalize(found), expected)
    assert found.shape == (6, 512)


def test_joint_baseline_costs_what_the_baseline_costs(build_ablation):
    def count(name: str) -> float:
        flops = FlopCountAnalysis(build_ablation(name).eval(), torch.zeros(1, 3, 64, 32))
        return flops.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none").total()

    assert count("baseline-joint") == count("baseline") > 0


def test_joint_baseline_locates_in_training_alone(build_ablation, make_batch, storage):
    model = build_ablation("baseline-joint")
    called = []
    for module in (*model.location.values(), *model.backbone.guidance.project.values()):
        module.register_forward_hook(lambda *args: called.append(1))
    model.eval()(make_batch())
    assert not called
    model.train()(make_batch())
    assert len(called) == 5  # three location modules, two guided maps
    model.eval().predict_boxes(make_batch())  # as the evaluation of the regions asks for
    assert len(called) == 10


def test_boxes_without_joint_optimisation_are_the_key_points(build_ablation, make_batch):
    model, batch = build_ablation("without-joint").eval(), make_batch()
    batch["keypoints"][0, :, 2] = 0  # nobody is seen there: the priors
    boxes = torch.stack(list(model.predict_boxes(batch).values()), dim=1)
    regions = [region for members in model.regions.values() for region in members]
    expected, valid = boxes_from_keypoints(batch["keypoints"], regions)
    torch.testing.assert_close(boxes[valid], expected[valid])
    torch.testing.assert_close(boxes[0, 3], torch.tensor([0, 9 / 16, 1, 15 / 16]))  # Table 1's legs
    assert not valid[0].any()

    with torch.no_grad():
        before = model(batch)
        batch["keypoints"][1, :, :2] *= 0.5
        after = model(batch)
    assert not torch.allclose(before[1], after[1])
    torch.testing.assert_close(before[2:], after[2:])
    assert not any("location" in name for name, _ in model.named_parameters())
    del batch["keypoints"]
    with pytest.raises(DataError, match="the batch has no 'keypoints'"):
        model(batch)


def test_single_grained_regions_are_the_whole_maps(build_ablation, make_batch):
    model, batch = build_ablation("single-grained-regions").eval(), make_batch()
    with torch.no_grad():
        maps = model.backbone(model.preprocess_image(batch))
        whole = {stage: model.extraction[stage]([maps[stage]]) for stage in ALL}
        features = model.heads(whole)
        found = model(batch)
    for stage, part, weight in zip(ALL, found.split(8, dim=1), (0.35, 0.5, 0.7, 0.8), strict=True):
        torch.testing.assert_close(part, weight * nn.functional.normalize(features[stage]), rtol=1e-4, atol=1e-5)


def test_single_grained_features_come_from_the_last_map(build_ablation, make_batch):
    model, batch = build_ablation("single-grained-features").eval(), make_batch()
    seen = {}
    for stage in FIRST:
        model.location[stage].register_forward_hook(lambda m, inputs, out, s=stage: seen.update({s: inputs[0]}))
    shapes = {}
    for stage in FIRST:
        model.sampling[stage].register_forward_hook(
            lambda m, inputs, out, s=stage: shapes.update({s: [tuple(x.shape[1:]) for x in out]})
        )
    model(batch)
    last = model.backbone(model.preprocess_image(batch))["stage4"]
    assert last.shape[1:] == (512, 4, 2)  # 64 x 32 pixels at a sixteenth
    assert all(torch.equal(seen[stage], last) for stage in FIRST)
    # Table 1's parts of the map: the head an eighth of its height and a quarter of its width, and so on.
    assert shapes["stage1"] == [(512, 1, 1), (512, 2, 1), (512, 2, 1), (512, 2, 2)]
    assert shapes["stage3"] == [(512, 4, 2)]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"MODEL.MGRE.SOURCE_BLOCKS": "(1, 2)"}, "MODEL.MGRE.SOURCE_BLOCKS .* three of 1, 2, 3, 4"),
        ({"MODEL.MGRE.SOURCE_BLOCKS": "(1, 2, 5)"}, "MODEL.MGRE.SOURCE_BLOCKS"),
        ({"MODEL.MGRE.BOXES": "keypoint"}, "MODEL.MGRE.BOXES has 'keypoint'.*nearest: keypoints"),
        (
            {"MODEL.MGRE.REGIONS": "whole_image"},
            "'whole_image' has regions without key points.*set MODEL.MGRE.BOXES prior",
        ),
        ({"MODEL.MGRE.REGION_FEATURES": "False", "MODEL.MGRE.BOXES": "prior"}, "REGION_FEATURES False"),
        ({"MODEL.MGRE.REGION_FEATURES": "False", "MODEL.MGRE.LOCATION.LOSS_WEIGHT": "0.0"}, "LOSS_WEIGHT above 0"),
    ],
)
def test_contradictions_are_told(small_config, overrides, message):
    with pytest.raises(ConfigError, match=message):
        small_config(**overrides)
