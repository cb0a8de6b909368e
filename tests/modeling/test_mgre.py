import pytest
import torch
from fastreid.modeling.losses import cross_entropy_loss, triplet_loss
from mgre.errors import DataError
from mgre.geometry import boxes_from_keypoints
from mgre.modeling.final_feature import final_feature
from mgre.modeling.losses import location_loss

STAGES = ("stage1", "stage2", "stage3", "stage4")


def parts_of(model, batch):
    """What the heads get, part by part, without MGRe.forward."""
    images = (batch["images"] - model.pixel_mean) / model.pixel_std
    maps = model.backbone(images)
    boxes = {s: model.location[s](maps[s]) for s in STAGES[:3]}
    samples = {s: model.sampling[s](maps[s], boxes[s]) for s in STAGES[:3]} | {"stage4": [maps["stage4"]]}
    return {s: model.extraction[s](samples[s]) for s in STAGES}, boxes


def test_evaluation_gives_equation_6_as_one_tensor(build_small, make_batch):
    model, batch = build_small().eval(), make_batch()
    with torch.no_grad():
        features = model(batch)
        parts, _ = parts_of(model, batch)
        expected = final_feature(model.heads(parts), {"stage1": 0.35, "stage2": 0.5, "stage3": 0.7, "stage4": 0.8})
    assert features.shape == (6, 4 * 8)
    torch.testing.assert_close(features, expected)


@pytest.mark.parametrize("overrides", [{}, {"REGION_FEATURES": "False"}, {"BOXES": "keypoints"}, {"STAGES": "()"}])
def test_one_pass_gives_the_features_and_the_boxes(build_small, make_batch, overrides):
    model = build_small(**{f"MODEL.MGRE.{key}": value for key, value in overrides.items()}).eval()
    batch, calls = make_batch(), []
    for location in model.location.values():
        torch.nn.init.normal_(location.predictor.weight, std=0.1)  # each image has boxes of its own
    with torch.no_grad():
        expected = model(batch), model.predict_boxes(batch)
    model.backbone.register_forward_hook(lambda *args: calls.append(1))
    features, boxes = model.embed_and_locate(batch)
    assert len(calls) == 1 and list(boxes) == list(expected[1])
    torch.testing.assert_close(features, expected[0])
    torch.testing.assert_close(boxes, expected[1])
    assert not features.requires_grad


def test_training_losses_are_the_terms_of_equation_9(build_small, make_batch, storage):
    batch = make_batch()
    model = build_small(**{"MODEL.MGRE.LAMBDA": "0.25", "MODEL.MGRE.LOCATION.LOSS_WEIGHT": "2.0"}).train()
    losses = model(batch)
    model.zero_grad()
    with torch.no_grad():
        parts, boxes = parts_of(model, batch)  # batch norm in training mode: the same statistics
        outputs = model.heads(parts, batch["targets"])
        expected = {}
        for stage in STAGES:
            weight = 1.0 if stage == "stage4" else 0.25
            out = outputs[stage]
            expected[f"loss_cls_{stage}"] = weight * cross_entropy_loss(out["cls_outputs"], batch["targets"], 0.1)
            expected[f"loss_triplet_{stage}"] = weight * triplet_loss(
                out["features"], batch["targets"], 0.3, False, True
            )
            if stage != "stage4":
                labels = boxes_from_keypoints(batch["keypoints"], model.regions[stage])
                expected[f"loss_location_{stage}"] = weight * 2.0 * location_loss(boxes[stage], *labels)
    assert losses.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(losses[name], expected[name], rtol=1e-4, atol=1e-5)


def test_each_stage_is_logged(build_small, make_batch, storage):
    build_small().train()(make_batch())
    logged = storage.latest()
    assert {f"{s}/cls_accuracy" for s in STAGES} <= logged.keys()
    assert {"train_iou/head", "train_iou/whole_body"} <= logged.keys()
    assert 0 <= logged["train_iou/whole_body"][0] <= 1


@pytest.mark.parametrize(("stages", "built"), [("()", 1), ("(2,)", 2), ("(1, 3)", 3)])
def test_subsets_of_the_stages(build_small, make_batch, storage, stages, built):
    model, batch = build_small(**{"MODEL.MGRE.STAGES": stages}), make_batch()
    losses = model.train()(batch)
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)  # DDP would wait for an unused one
    assert model.eval()(batch).shape == (6, built * 8)


def test_every_parameter_gets_a_gradient(build_small, make_batch, storage):
    model = build_small().train()
    sum(model(make_batch()).values()).backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


def test_location_loss_of_0_needs_no_key_points(build_small, make_batch, storage):
    batch = make_batch()
    del batch["keypoints"]
    losses = build_small(**{"MODEL.MGRE.LOCATION.LOSS_WEIGHT": "0.0"}).train()(batch)
    assert not any("location" in name for name in losses)
    with pytest.raises(DataError, match=r"keypoints.*LOSS_WEIGHT 0"):
        build_small().train()(batch)


def test_predicted_boxes_are_the_priors_at_step_0(build_small, make_batch):
    boxes = build_small().eval().predict_boxes(make_batch())
    assert list(boxes) == ["head", "left_torso", "right_torso", "legs", "upper_body", "lower_body", "whole_body"]
    torch.testing.assert_close(boxes["legs"], torch.tensor([[0, 9 / 16, 1, 15 / 16]] * 6))


def test_the_callers_batch_stays_as_it_was(build_small, make_batch, storage):
    model, batch = build_small().train(), make_batch()
    batch["targets"][:] = -1  # the mark of precise batch norm
    before = {k: v.clone() for k, v in batch.items()}
    model(batch)
    model.eval()(batch)
    assert all(torch.equal(batch[k], before[k]) for k in batch)


def test_autocast_in_bfloat16_trains(build_small, make_batch, storage):
    model = build_small().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(make_batch())
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert losses["loss_location_stage1"].dtype == torch.float32


def test_without_a_teacher_the_boxes_stay_the_priors(build_small, make_batch, storage):
    untaught = {"MODEL.MGRE.LOCATION.LOSS_WEIGHT": "0.0", "MODEL.MGRE.LOCATION.REID_GRADIENT": "0.0"}
    model, batch = build_small(**untaught).train(), make_batch()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        sum(model(batch).values()).backward()
        optimizer.step()
    assert all(p.grad is not None for p in trained)
    torch.testing.assert_close(model.eval().predict_boxes(batch)["legs"], torch.tensor([[0, 9 / 16, 1, 15 / 16]] * 6))


def test_joint_optimisation_teaches_the_boxes_without_a_location_loss(build_small, make_batch, storage):
    joint = {"MODEL.MGRE.LOCATION.LOSS_WEIGHT": "0.0", "MODEL.MGRE.LOCATION.REID_GRADIENT": "1.0"}
    model = build_small(**joint).train()
    sum(model(make_batch()).values()).backward()
    assert model.location["stage1"].predictor.weight.grad.abs().max() > 0


def test_triplet_loss_is_exact_under_autocast(build_small, make_batch, storage):
    """Features whose distances drown in half precision: large, and close to each other."""
    model = build_small(**{"MODEL.MGRE.STAGES": "()"}).train()
    targets = make_batch()["targets"]
    features = 30 + torch.randn(6, 64, generator=torch.Generator().manual_seed(0)).bfloat16().float() / 8
    logits = torch.randn(6, 3)
    outputs = {"stage4": {"cls_outputs": logits, "pred_class_logits": logits, "features": features}}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model._reid_losses(outputs, targets)["loss_triplet_stage4"]
    distances = torch.cdist(features.double(), features.double())
    same = targets[:, None] == targets[None]
    hardest = (distances * same).amax(dim=1) - distances.masked_fill(same, torch.inf).amin(dim=1)
    # The toolbox subtracts squares of about 57,600: float32 rounds them by 0.004, bfloat16 by 256.
    torch.testing.assert_close(loss.double(), (hardest + 0.3).clamp(min=0).mean(), rtol=0, atol=0.01)
