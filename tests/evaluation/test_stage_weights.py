import csv
import functools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fastreid.evaluation import ReidEvaluator, inference_on_dataset, rank
from fastreid.utils.compute_dist import compute_cosine_distance
from mgre.commands.main import main
from mgre.commands.select_weights import run
from mgre.config import load_config
from mgre.data import build_test_loader
from mgre.engine.load_model import load_model
from mgre.engine.trainer import Trainer
from mgre.errors import ConfigError, SetupError
from mgre.evaluation.distances import cosine_rows
from mgre.evaluation.stage_weights import (
    PAPER_WEIGHTS,
    StageDistances,
    climb,
    make_grid,
    measure_stages,
    plot_curves,
    search,
    variants,
    write_config,
)
from mgre.modeling.final_feature import final_feature
from mgre_cli.select_weights import parse_args
from PIL import Image

TOOL = "tools/select_weights.py"
STAGES = ("stage1", "stage2", "stage3", "stage4")
VECTORS = [(0.35, 0.5, 0.7, 0.8), (0.5, 0.5, 0.5, 0.5), (0.0, 0.05, 1.0, 0.1), (0.0, 0.0, 0.0, 0.3)]


@pytest.fixture
def problem():
    """Features of four stages, less noise in the later ones, of 40 queries and 200 gallery images; and distances."""
    rng = np.random.default_rng(0)
    pids, camids = np.concatenate([np.arange(40) % 20, rng.integers(0, 20, 200)]), rng.integers(0, 4, 240)
    features = {}
    for stage, dim, noise in zip(STAGES, (8, 16, 24, 8), (3.0, 2.0, 2.0, 1.0), strict=True):
        centres = rng.standard_normal((20, dim))
        noisy = centres[pids] + noise * rng.standard_normal((240, dim))
        features[stage] = torch.from_numpy(7 * noisy).float()  # of any length
    by_stage = {stage: np.asarray(cosine_rows(f[:40], f[40:])) for stage, f in features.items()}
    return features, StageDistances(by_stage, pids[:40], pids[40:], camids[:40], camids[40:])


@pytest.mark.parametrize("weights", VECTORS)
def test_distances_are_those_of_the_final_feature(problem, weights):
    features, distances = problem
    final = final_feature(features, dict(zip(STAGES, weights, strict=True)))
    expected = compute_cosine_distance(final[:40], final[40:])  # the toolbox's
    np.testing.assert_allclose(np.asarray(distances.combine(weights)), expected, rtol=0, atol=5e-7)
    # The lemma itself, by plain loops in double precision.
    query, image = (np.concatenate([w * unit(f[n]) for w, f in zip(weights, features.values(), strict=True)])
                    for n in (3, 77))  # fmt: skip
    cosine = query @ image / np.sqrt((query**2).sum() * (image**2).sum())
    by_stage = [1 - unit(f[3]) @ unit(f[77]) for f in features.values()]
    total = sum(w**2 for w in weights)
    assert 1 - cosine == pytest.approx(sum(w**2 * d for w, d in zip(weights, by_stage, strict=True)) / total)


def unit(feature: torch.Tensor) -> np.ndarray:
    values = feature.double().numpy()
    return values / np.sqrt((values**2).sum())


@pytest.mark.parametrize("weights", VECTORS)
def test_map_is_that_of_the_toolbox(problem, weights):
    features, distances = problem
    final = final_feature(features, dict(zip(STAGES, weights, strict=True)))
    dist = compute_cosine_distance(final[:40], final[40:])
    labels = distances.q_pids, distances.g_pids, distances.q_camids, distances.g_camids
    precisions = rank.eval_market1501.__wrapped__(dist, *labels, 50)[1]  # the toolbox's own, in Python
    assert distances.mean_precision(weights) == pytest.approx(np.mean(precisions), abs=1e-6)


BROKEN = [("query", "0022_c1s1_000001_00.jpg"), ("bounding_box_test", "0021_c1s1_000002_00.jpg")]


@pytest.fixture
def loader_of(small_run):
    """The small run's test loader, with overrides."""

    def load(*overrides):
        cfg = load_config("configs/MGRe/Base-MGRe.yml", [*small_run, *overrides])
        return cfg, *build_test_loader(cfg, "CustomReID")

    return load


@pytest.mark.parametrize("built", [(1, 2, 3), (2,)])
def test_one_pass_gives_the_map_that_the_evaluator_finds_for_each_weight(loader_of, build_small, built):
    cfg, loader, num_query = loader_of()
    model = build_small(**{"MODEL.MGRE.STAGES": str(built)}).train()
    distances = measure_stages(model, loader, num_query)
    assert model.training and not model.heads._forward_hooks
    stages = [f"stage{number}" for number in (*built, 4)]
    assert list(distances.by_stage) == stages
    assert all(array.shape == (6, 6) and array.dtype == np.float32 for array in distances.by_stage.values())
    for vector in VECTORS:
        model.stage_weights = dict(zip(STAGES, vector, strict=True))
        found = inference_on_dataset(model, loader, ReidEvaluator(cfg, num_query))
        weights = [model.stage_weights[stage] for stage in stages]
        assert 100 * distances.mean_precision(weights) == pytest.approx(found["mAP"], abs=1e-4)


def test_images_that_cannot_be_read_are_left_out(loader_of, build_small, tmp_path, caplog):
    _, loader, num_query = loader_of("DATASETS.UNREADABLE_IMAGES", "skip", "TEST.IMS_PER_BATCH", "1")
    broken = [tmp_path / "own" / folder / name for folder, name in BROKEN]
    for path in broken:
        path.write_bytes(b"")
    found = measure_stages(build_small(), loader, num_query)
    assert "1 of 6 test images cannot be read and are left out" in caplog.text
    for path in broken:
        path.unlink()
    _, loader, num_query = loader_of()
    expected = measure_stages(build_small(), loader, num_query)
    for stage, distances in expected.by_stage.items():
        np.testing.assert_allclose(found.by_stage[stage], distances, atol=1e-6)
    for labels in ("q_pids", "g_pids", "q_camids", "g_camids"):
        np.testing.assert_array_equal(getattr(found, labels), getattr(expected, labels))


def test_scoring_leaves_the_distances_as_they_are(problem):
    _, distances = problem
    before = {stage: array.copy() for stage, array in distances.by_stage.items()}
    first = distances.mean_precision((0.35, 0.5, 0.7, 0.8))
    distances.mean_precision((1.0, 0.1, 0.5, 0.2))
    assert distances.mean_precision((0.35, 0.5, 0.7, 0.8)) == first
    for stage, array in distances.by_stage.items():
        np.testing.assert_array_equal(array, before[stage])


def test_grid():
    assert make_grid(0.25) == (0, 0.25, 0.5, 0.75, 1)
    assert make_grid(0.05)[3] == 0.15 and len(make_grid(0.05)) == 21
    assert make_grid(0.4) == (0, 0.4, 0.8)
    assert variants((0.1, 0.2), 0, (0, 0.5)) == [(0, 0.2), (0.5, 0.2)]
    assert variants((0.1, 0.2), 1, (0, 0.5)) == [(0.1, 0.5)]  # the last is never 0


def test_climbing_reaches_the_top_of_a_hill():
    def height(weights):
        return -sum((weight - top) ** 2 for weight, top in zip(weights, (0.0, 0.3, 1.0, 0.0), strict=True))

    for start in VECTORS:
        assert climb(height, start, make_grid(0.1)) == (0.0, 0.3, 1.0, 0.1)


def test_what_gains_nothing_stays():
    assert climb(lambda weights: 0.7, (0.35, 0.5), make_grid(0.1)) == (0.35, 0.5)
    ends = search(lambda weights: 0.7, [(0.35, 0.5), (0.1, 0.1)], make_grid(0.1))
    assert ends == (0.35, 0.5)


def test_an_end_is_no_worse_than_its_neighbours_on_rough_ground():
    grid = make_grid(0.1)
    rough = functools.cache(lambda weights: np.random.default_rng([int(100 * w) for w in weights]).random())
    starts = [(0.35, 0.5, 0.8), (0.5, 0.5, 0.5)]
    best = search(rough, starts, grid)
    for index in range(3):
        assert rough(best) == max(rough(best), *map(rough, variants(best, index, grid)))
    assert rough(best) == max(rough(climb(rough, start, grid)) for start in starts) >= max(map(rough, starts))


def test_the_search_is_no_worse_than_the_papers_weights(problem):
    _, distances = problem
    score = functools.cache(distances.mean_precision)
    paper = tuple(PAPER_WEIGHTS.values())
    best = search(score, [paper, (0.5,) * 4], make_grid(0.1))
    assert score(best) > score(paper)
    # The least noisy stage counts for more than the noisiest.
    assert best[3] > best[0]


def test_a_config_that_uses_the_weights(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "er" / "stage_weights.yml"
    path.parent.mkdir(parents=True)
    write_config(str(path), "configs/MGRe/market.yml", [0.1, 0.0, 1.0, 0.25], "Chosen.")
    monkeypatch.chdir("/")  # the path to the base does not depend on where one is
    cfg = load_config(str(path), ["MODEL.DEVICE", "cpu"])
    assert tuple(cfg.MODEL.MGRE.STAGE_WEIGHTS) == (0.1, 0.0, 1.0, 0.25)
    assert cfg.DATASETS.NAMES == ("Market1501",) and cfg.MODEL.META_ARCHITECTURE == "MGRe"
    assert path.read_text().startswith("# Chosen.\n_BASE_: ")


def test_without_matplotlib_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SetupError, match="pip install matplotlib"):
        plot_curves(str(tmp_path / "plot.png"), {"stage4": [(0.5, 0.9)]}, {"stage4": 0.5})


# -- the tool ---------------------------------------------------------------------------------------


@pytest.fixture
def select(toy_run, run_script, tmp_path, write_image, capsys):
    """Run the tool on a fresh model, with the training images of the toy run twice; what it printed."""
    for path in list((tmp_path / "own" / "bounding_box_train").glob("*.jpg")):
        write_image(path.with_name(path.name.replace("000001", "000002")))

    def call(
        *words: str, overrides: tuple[str, ...] = (), config: str = "Base-MGRe", status: int = 0, alone: bool = False
    ):
        path = f"configs/MGRe/{config}.yml"
        options = [*toy_run, "DATASETS.VALIDATION.NUM_IDS", "5", "DATASETS.NAMES", "('CustomReIDVal',)", *overrides]
        weights = tmp_path / "model.pth"
        if status == 0:
            torch.manual_seed(0)
            model = Trainer.build_model(load_config(path, options))
            torch.save({"model": model.state_dict()}, weights)
            options += ["MODEL.WEIGHTS", str(weights)]
        arguments = ["--config-file", path, *words, *options]
        if alone:
            done = run_script(TOOL, *arguments)
            assert done.returncode == 0, done.stderr
            return done
        capsys.readouterr()
        found = main(lambda: run(parse_args(arguments)))
        printed = capsys.readouterr()
        assert found == status, printed.out[-3000:] + printed.err[-3000:]
        return printed

    return call


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_the_tool_writes_a_config_that_is_no_worse(select, toy_run, tmp_path):
    printed = select("--step", "0.25")
    out = tmp_path / "out"
    named = {row["name"]: row for row in read(out / "stage_weights.csv")}
    assert list(named) == ["config", "paper", "equal", "chosen"]
    assert [named["paper"][f"lambda_{i}"] for i in range(1, 5)] == ["0.35", "0.5", "0.7", "0.8"]
    assert float(named["chosen"]["mAP"]) == max(float(row["mAP"]) for row in named.values())
    assert "chosen" in printed.out and "CustomReIDVal" in printed.out
    curves = read(out / "stage_weights_curves.csv")
    assert [row["name"] for row in curves] == ["stage1"] * 5 + ["stage2"] * 5 + ["stage3"] * 5 + ["stage4"] * 4
    assert [row["lambda_2"] for row in curves[5:10]] == ["0.0", "0.25", "0.5", "0.75", "1.0"]
    assert {row["lambda_1"] for row in curves[5:]} == {"0.35"}
    assert Image.open(out / "stage_weights_curves.png").width == 720

    # The config it wrote, evaluated by the toolbox, gives the mAP that it says; and so do points of the curves.
    options = [*toy_run, "DATASETS.VALIDATION.NUM_IDS", "5", "MODEL.WEIGHTS", str(tmp_path / "model.pth")]
    cfg = load_config(str(out / "stage_weights.yml"), options)
    assert list(cfg.MODEL.MGRE.STAGE_WEIGHTS) == [float(named["chosen"][f"lambda_{i}"]) for i in range(1, 5)]
    loader, num_query = build_test_loader(cfg, "CustomReIDVal")
    model = load_model(cfg)
    for row in (named["chosen"], curves[0], curves[9], curves[18]):
        model.stage_weights = {f"stage{i}": float(row[f"lambda_{i}"]) for i in range(1, 5)}
        found = inference_on_dataset(model, loader, ReidEvaluator(cfg, num_query))
        assert float(row["mAP"]) == pytest.approx(found["mAP"], abs=2e-4)

    # The same again, byte by byte, by the command line.
    files = ("stage_weights.csv", "stage_weights_curves.csv", "stage_weights.yml")
    before = {name: (out / name).read_bytes() for name in files}
    assert select("--step", "0.25", alone=True).stdout == printed.out
    assert {name: (out / name).read_bytes() for name in files} == before


def test_the_tool_with_fewer_stages_on_a_test_set(select, tmp_path):
    overrides = ("MODEL.MGRE.STAGES", "(3,)", "MODEL.MGRE.STAGE_WEIGHTS", "(0.11, 0.22, 0.3, 0.4)")
    select("--step", "0.5", "--dataset", "CustomReID", "--output", str(tmp_path / "new"), overrides=overrides)
    rows = read(tmp_path / "new" / "stage_weights.csv")
    assert list(rows[0]) == ["name", "lambda_3", "lambda_4", "mAP"]
    written = (tmp_path / "new" / "stage_weights.yml").read_text()
    assert "STAGE_WEIGHTS: [0.11, 0.22, " in written  # those of stages that are not built stay
    assert "on CustomReID:" in written


def test_the_tool_warns_of_identities_seen_in_training(select, tmp_path):
    printed = select("--step", "1", overrides=("DATASETS.NAMES", "('CustomReID',)"))
    assert "warning: by the config, CustomReID was trained on, with the identities of CustomReIDVal" in printed.err


def test_the_tool_without_matplotlib_does_the_rest(select, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "no plot: " in select("--step", "1").err
    assert (tmp_path / "out" / "stage_weights.yml").exists()


@pytest.mark.parametrize(
    ("config", "overrides", "message"),
    [
        ("quickstart-baseline", (), "MODEL.META_ARCHITECTURE is 'Baseline', whose feature has no stages to weigh"),
        ("Base-MGRe", (), "MODEL.WEIGHTS is empty"),
    ],
)
def test_the_tool_refuses(select, config, overrides, message):
    assert message in select(config=config, overrides=overrides, status=1).err


def test_a_model_of_one_stage_is_refused(loader_of, build_small):
    _, loader, num_query = loader_of()
    with pytest.raises(ConfigError, match="final feature is that of stage4 alone: there are no weights to choose"):
        measure_stages(build_small(**{"MODEL.MGRE.STAGES": "()"}), loader, num_query)
