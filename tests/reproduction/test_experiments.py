"""The paper's figures, typed again, and what each experiment trains."""

import pytest
from mgre.reproduction import reports
from mgre.reproduction.experiments import BALANCE, DIMENSIONS, EXPERIMENTS, MGRE, TABLES
from mgre.reproduction.jobs import ablation_overrides, first_difference, leaves_of, load_planned

QUICK = "configs/MGRe/reproduce-quick.yml"


def test_all_tables_and_figures_are_there_and_the_balance():
    expected = [*(f"table{number}" for number in range(2, 9)), *(f"figure{number}" for number in range(4, 7))]
    assert list(EXPERIMENTS) == [*expected, "balance"]


@pytest.mark.parametrize(
    ("table", "training", "dataset", "figures"),
    [
        ("table2", "mgre", "DukeMTMC", (82.0, 91.3)),
        ("table3", "mgre", "CUHK03Labeled", (82.4, 84.9)),
        ("table3", "mgre", "MSMT17", (62.3, 83.1, 91.3)),
        ("table4", "baseline", "Market1501", (85.8, 94.3)),
        ("table4", "stages23", "DukeMTMC", (81.7, 90.7)),
        ("table5", "single-grained-features", "Market1501", (87.5, 95.1, 98.2)),
        ("table6", "mgn-erasing", "Market1501", (86.6, 94.8)),
        ("table7", "without-joint", "Market1501", (89.5, 95.6, 98.5)),
    ],
)
def test_the_papers_figures(table, training, dataset, figures):
    assert tuple(TABLES[table].paper[training][dataset].values()) == figures


@pytest.mark.parametrize("table", TABLES)
def test_figures_belong_to_trainings(table):
    names = {training.name for training in TABLES[table].trainings}
    assert set(TABLES[table].paper) | set(TABLES[table].occluded or {}) <= names


def test_table_6_trains_each_model_with_random_erasing_and_without():
    found = {t.name: load_planned(QUICK, t.overrides).INPUT.REA.ENABLED for t in TABLES["table6"].trainings}
    assert found == {
        **{f"{name}-erasing": True for name in ("baseline", "mgn", "mgre")},
        **{f"{name}-no-erasing": False for name in ("baseline", "mgn", "mgre")},
    }
    # The paper's recipe is the one with erasing.
    assert set(TABLES["table6"].paper) == set(TABLES["table6"].occluded) == {"mgn-erasing", "mgre-erasing"}


def test_trainings_of_one_name_are_one():
    trainings = [t for table in TABLES.values() for t in table.trainings] + [*DIMENSIONS.values(), *BALANCE.values()]
    by_name = {}
    for training in trainings:
        assert by_name.setdefault(training.name, (training.ablation, training.overrides)) == (
            training.ablation,
            training.overrides,
        )


@pytest.mark.parametrize(
    ("ablation", "expected"),
    [
        ("baseline", {"STAGES": (), "EXTRACTION": False}),
        ("stages2", {"STAGES": (2,)}),
        ("baseline-joint", {"STAGES": (1, 2, 3), "EXTRACTION": False, "REGION_FEATURES": False}),
        ("single-grained-features", {"SOURCE_BLOCKS": (4, 4, 4)}),
        ("cut-gradient", {"STAGES": (1, 2, 3), "BOXES": "location"}),
        ("", {"STAGES": (1, 2, 3), "EXTRACTION": True, "REGION_FEATURES": True}),
    ],
)
def test_an_ablation_changes_a_data_sets_config(ablation, expected):
    cfg = load_planned(QUICK, ablation_overrides(ablation))
    assert {key: cfg.MODEL.MGRE[key] for key in expected} == expected
    assert cfg.DATASETS.TESTS == ("SyntheticPedestrians",)
    assert (0 if "baseline" in ablation else 512) == cfg.MODEL.HEADS.EMBEDDING_DIM


def test_the_cut_gradient_is_a_row_of_table_7_beside_the_papers():
    gradients = {
        t.name: load_planned(QUICK, ablation_overrides(t.ablation)).MODEL.MGRE.LOCATION.REID_GRADIENT
        for t in TABLES["table7"].trainings
    }
    assert gradients == {"baseline": 1, "baseline-joint": 1, "without-joint": 1, "cut-gradient": 0, "mgre": 1}
    assert "cut-gradient" not in TABLES["table7"].paper


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_the_final_feature_has_the_dimension_of_figure_5(dimension):
    cfg = load_planned(QUICK, DIMENSIONS[dimension].overrides)
    assert dimension == 4 * cfg.MODEL.HEADS.EMBEDDING_DIM


def test_the_balance_has_five_weights_with_and_without_the_gradient():
    assert list(BALANCE) == [(w, g) for w in (1.0, 3.0, 10.0, 30.0, 100.0) for g in (0.0, 1.0)]
    for (weight, gradient), training in BALANCE.items():
        location = load_planned(QUICK, training.overrides).MODEL.MGRE.LOCATION
        assert (weight, gradient) == (location.LOSS_WEIGHT, location.REID_GRADIENT)
    assert BALANCE[10.0, 1.0].name == "weight10-gradient1"


def test_a_key_that_an_older_version_lacked_counts_with_its_default():
    now = leaves_of(load_planned(QUICK, []))
    before = {key: value for key, value in now.items() if key != "SOLVER.AMP.DTYPE"}
    assert first_difference(before, now) is None
    now = leaves_of(load_planned(QUICK, ["SOLVER.AMP.DTYPE", "bfloat16"]))
    assert first_difference(before, now) == ("SOLVER.AMP.DTYPE", "auto", "bfloat16")


def test_the_papers_figures_are_not_those_of_a_part():
    whole, part = (load_planned(f"configs/MGRe/{name}.yml", []) for name in ("market-quick", "market-part"))
    assert reports._paper(TABLES["table4"].paper, MGRE, whole, "Market1501")["mAP"] == 90.1
    assert reports._paper(TABLES["table4"].paper, MGRE, part, "Market1501") == {}
