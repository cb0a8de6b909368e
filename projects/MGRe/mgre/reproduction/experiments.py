"""What the paper ran: the trainings of each table and figure, and the figures it reports.

All figures here are the paper's. Each training is a config of ``configs/MGRe/ablations``, or overrides, on the config
of a data set.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

MARKET = "configs/MGRe/market.yml"

# Percent by metric, by data set.
Figures = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Training:
    """A row of a table.

    Attributes:
        name: of its folder; trainings of the same name are the same, whichever table they are in.
        title: as the paper calls it.
        ablation: file in ``configs/MGRe/ablations``, without its ending; empty for the data set's config as it is.
        overrides: KEY VALUE ..., on top of the ablation.
    """

    name: str
    title: str
    ablation: str = ""
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table of trainings.

    Attributes:
        title: of the table.
        trainings: its rows.
        paper: the paper's figures, by the name of the training.
        config_files: the data sets it is about.
        occluded: beside each row, the same model on occluded test images, and the paper's figures for that.
    """

    title: str
    trainings: tuple[Training, ...]
    paper: Mapping[str, Figures] = field(default_factory=dict)
    config_files: tuple[str, ...] = (MARKET,)
    occluded: Mapping[str, Figures] | None = None


def _market(precision: float, *ranks: float) -> Figures:
    return {"Market1501": _percent(precision, *ranks)}


def _market_and_duke(market: tuple[float, float], duke: tuple[float, float]) -> Figures:
    return {"Market1501": _percent(*market), "DukeMTMC": _percent(*duke)}


def _percent(precision: float, *ranks: float) -> dict[str, float]:
    return dict(zip(("mAP", "Rank-1", "Rank-5"), (precision, *ranks), strict=False))


MGRE = Training("mgre", "MGRe")
BASELINE = Training("baseline", "Baseline", "baseline")
MGN = Training("mgn", "MGN", "mgn")
MARKET_AND_DUKE = (MARKET, "configs/MGRe/duke.yml")


def _with_erasing(training: Training, enabled: bool) -> Training:
    """A training with random erasing or without it, whatever the data set's config has."""
    return Training(
        f"{training.name}-{'erasing' if enabled else 'no-erasing'}",
        f"{training.title}, {'' if enabled else 'no '}random erasing",
        training.ablation,
        (*training.overrides, "INPUT.REA.ENABLED", str(enabled)),
    )


TABLES = {
    "table2": Table(
        "Table 2: MGRe on Market-1501 and DukeMTMC-reID",
        (MGRE,),
        {"mgre": _market_and_duke((90.1, 96.2), (82.0, 91.3))},
        MARKET_AND_DUKE,
    ),
    "table3": Table(
        "Table 3: MGRe on CUHK03 and MSMT17",
        (MGRE,),
        {
            "mgre": {
                "CUHK03Detected": _percent(79.3, 81.6),
                "CUHK03Labeled": _percent(82.4, 84.9),
                "MSMT17": _percent(62.3, 83.1, 91.3),
            }
        },
        ("configs/MGRe/cuhk03-detected.yml", "configs/MGRe/cuhk03-labeled.yml", "configs/MGRe/msmt17.yml"),
    ),
    "table4": Table(
        "Table 4: stages with regions",
        (
            BASELINE,
            Training("stages1", "Baseline+1", "stages1"),
            Training("stages2", "Baseline+2", "stages2"),
            Training("stages3", "Baseline+3", "stages3"),
            Training("stages23", "Baseline+2+3", "stages23"),
            Training("mgre", "MGRe (1+2+3)"),
        ),
        {
            "baseline": _market_and_duke((85.8, 94.3), (76.6, 86.5)),
            "stages1": _market_and_duke((89.0, 95.4), (79.7, 90.1)),
            "stages2": _market_and_duke((89.0, 95.2), (80.0, 90.6)),
            "stages3": _market_and_duke((88.8, 95.5), (80.0, 90.1)),
            "stages23": _market_and_duke((90.0, 95.5), (81.7, 90.7)),
            "mgre": _market_and_duke((90.1, 96.2), (82.0, 91.3)),
        },
        MARKET_AND_DUKE,
    ),
    "table5": Table(
        "Table 5: features and regions of one granularity",
        (
            Training("single-grained-features", "single-grained features", "single-grained-features"),
            Training("single-grained-regions", "single-grained regions", "single-grained-regions"),
            MGRE,
        ),
        {
            "single-grained-features": _market(87.5, 95.1, 98.2),
            "single-grained-regions": _market(89.6, 95.3, 98.5),
            "mgre": _market(90.1, 96.2),
        },
    ),
    "table6": Table(
        "Table 6: test images occluded with probability 0.5",
        # Random erasing trains for occlusions. The paper's recipe has it, the quick configs have not.
        tuple(_with_erasing(t, enabled) for enabled in (True, False) for t in (BASELINE, MGN, MGRE)),
        {"mgn-erasing": _market(86.6, 94.8), "mgre-erasing": _market(90.1, 96.2)},
        occluded={"mgn-erasing": _market(77.8, 90.8), "mgre-erasing": _market(85.9, 94.0)},
    ),
    "table7": Table(
        "Table 7: joint optimisation of location and features",
        (
            BASELINE,
            Training("baseline-joint", "Baseline + joint optimisation", "baseline-joint"),
            Training("without-joint", "MGRe without joint optimisation", "without-joint"),
            # Not the paper's.
            Training("cut-gradient", "MGRe, ReID gradient to the boxes cut", "cut-gradient"),
            MGRE,
        ),
        {
            "baseline": _market(85.8, 94.3),
            "baseline-joint": _market(86.6, 95.0, 98.3),
            "without-joint": _market(89.5, 95.6, 98.5),
            "mgre": _market(90.1, 96.2),
        },
    ),
}

# Figure 5: the final feature's dimension, four embeddings together (the paper's choice is 2048, which is MGRE).
DIMENSIONS = {
    dimension: MGRE
    if dimension == 2048
    else Training(
        f"dimension{dimension}", f"MGRe, {dimension}", overrides=("MODEL.HEADS.EMBEDDING_DIM", str(dimension // 4))
    )
    for dimension in (512, 1024, 2048, 4096)
}

# The balance of the two tasks: the location loss's weight, and how much of the ReID gradient reaches the boxes.
LOSS_WEIGHTS = (1.0, 3.0, 10.0, 30.0, 100.0)
REID_GRADIENTS = (0.0, 1.0)
BALANCE = {
    (weight, gradient): Training(
        f"weight{weight:g}-gradient{gradient:g}",
        f"MGRe, location loss x {weight:g}, ReID gradient {gradient:g}",
        overrides=(
            *("MODEL.MGRE.LOCATION.LOSS_WEIGHT", str(weight)),
            *("MODEL.MGRE.LOCATION.REID_GRADIENT", str(gradient)),
        ),
    )
    for weight in LOSS_WEIGHTS
    for gradient in REID_GRADIENTS
}

EXPERIMENTS = {
    **{name: table.title for name, table in TABLES.items()},
    "table8": "Table 8: multiply-adds, parameters and latency",
    "figure4": "Figure 4: class activation maps",
    "figure5": "Figure 5: dimension of the final feature",
    "figure6": "Figure 6: weights of the final feature",
    "balance": "The balance of location loss and ReID gradient",
}
