import pytest
from mgre.config import leaves, load_config, loading
from mgre.config.keys import KEYS
from mgre.errors import ConfigError, SetupError

BASE = "configs/MGRe/Base-MGRe.yml"


def load(*overrides: str, config: str = BASE):
    return load_config(config, ["MODEL.DEVICE", "cpu", *overrides])


def test_file_then_overrides():
    cfg = load("MODEL.MGRE.STAGES", "(1,)", "SOLVER.BASE_LR", "0.01")
    assert cfg.MODEL.META_ARCHITECTURE == "MGRe"  # the file
    assert (cfg.MODEL.MGRE.STAGES, cfg.SOLVER.BASE_LR) == ((1,), 0.01)  # the command line
    assert cfg.TEST.RERANK.K1 == 20  # the toolbox's default
    assert cfg.is_frozen()


def test_the_papers_values():
    cfg = load()
    assert cfg.MODEL.MGRE.STAGE_WEIGHTS == (0.35, 0.5, 0.7, 0.8)
    assert (cfg.MODEL.LOSSES.CE.EPSILON, cfg.MODEL.LOSSES.TRI.MARGIN) == (0.1, 0.3)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_EPOCH, cfg.SOLVER.IMS_PER_BATCH) == (3.5e-4, 240, 64)
    assert cfg.MODEL.HEADS.EMBEDDING_DIM == 512
    assert cfg.MODEL.MGRE.LOCATION.REID_GRADIENT == 1.0  # joint optimisation


def test_examples_of_what_is_allowed_are_allowed(tmp_path):
    cfg = load("DATASETS.NAMES", "('CustomReID',)", "OUTPUT_DIR", "'2024'", "INPUT.SIZE_TRAIN", "(256, 128)")
    assert (cfg.DATASETS.NAMES, cfg.OUTPUT_DIR, cfg.INPUT.SIZE_TRAIN) == (("CustomReID",), "2024", [256, 128])
    (tmp_path / "mine.yml").write_text("""DATASETS: {NAMES: "('CustomReID',)"}\n""")
    assert load(config=str(tmp_path / "mine.yml")).DATASETS.NAMES == ("CustomReID",)


def test_a_whole_number_is_a_number(tmp_path):
    (tmp_path / "mine.yml").write_text("SOLVER: {BASE_LR: 1}\n")
    cfg = load("MODEL.MGRE.LOCATION.LOSS_WEIGHT", "0", config=str(tmp_path / "mine.yml"))
    assert (cfg.SOLVER.BASE_LR, cfg.MODEL.MGRE.LOCATION.LOSS_WEIGHT) == (1.0, 0.0)


@pytest.mark.parametrize("key", ["MODEL.BACKBONE.NORM", "MODEL.HEADS.NORM"])
def test_syncbn_goes_by_its_usual_name(key):
    cfg = load(key, "SyncBN")
    section, name = key.split(".")[1:]
    assert cfg.MODEL[section][name] == "syncBN"


def test_configs_come_from_the_folder_of_the_file(tmp_path):
    (tmp_path / "base.yml").write_text("SOLVER: {MAX_EPOCH: 7}\n")
    (tmp_path / "mine.yml").write_text("_BASE_: base.yml\nSEED: 3\n")
    cfg = load(config=str(tmp_path / "mine.yml"))
    assert (cfg.SOLVER.MAX_EPOCH, cfg.SEED) == (7, 3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["MODEL.MGRE.STAGE", "(1,)"], r"unknown config key MODEL.MGRE.STAGE .*\(nearest: MODEL.MGRE.STAGES\)"),
        (["MODEL.MGRE.STAGES"], "pairs KEY VALUE"),
        (["SOLVER.MAX_EPOCH", "ten"], "MAX_EPOCH is 'ten' in the command line; allowed: a whole number, like 240"),
        (["SOLVER.MAX_EPOCH", "2.5"], "SOLVER.MAX_EPOCH is '2.5'.* whole number"),
        (["TEST.RERANK.ENABLED", "true"], "TEST.RERANK.ENABLED is 'true' in .*; allowed: True or False$"),
        (["SOLVER.BASE_LR", "small"], "SOLVER.BASE_LR is 'small'.*; allowed: a number, like 0.00035"),
        (["DATASETS.NAMES", "CustomReID"], r"""allowed: a tuple in quotes, like "\('CustomReID',\)\"$"""),
        (["DATASETS.NAMES", "('market1501')"], r"""allowed: a tuple in quotes, like "\('market1501',\)\"$"""),
        (["DATASETS.NAMES", "(a, 'b'"], r"""allowed: a tuple in quotes, like "\('a', 'b'\)\"$"""),
        (["DATASETS.NAMES", ","], r"""allowed: a tuple in quotes, like "\('Market1501',\)\"$"""),
        (["INPUT.SIZE_TRAIN", "256x128"], r'allowed: a tuple in quotes, like "\(256, 128\)"$'),
        (["OUTPUT_DIR", "2024"], """allowed: text; .*quotes in quotes, "'2024'\"$"""),
        (["SOLVER.WARMUP_EPOCHS", "240"], "SOLVER.WARMUP_EPOCHS is 240.0; allowed: 0, or at most 239"),
        (["SOLVER.MAX_EPOCH", "5"], "WARMUP_EPOCHS is 10.0; allowed: 0, or at most 4, one less than SOLVER.MAX_EPOCH"),
        (["SOLVER.WARMUP_ITERS", "500"], "SOLVER.WARMUP_ITERS is 500; allowed: 0 where SOLVER.WARMUP_EPOCHS is 10"),
        (["MODEL.META_ARCHITECTURE", "MGre"], r"'MGre', which is not known \(nearest: MGRe\); known: .*Baseline"),
        (["MODEL.MGRE.BACKBONE", "build_resnet"], "nearest: build_res"),
        (["MODEL.HEADS.NAME", "Head"], "MODEL.HEADS.NAME has 'Head'.*MGReHead"),
        (["DATASETS.NAMES", "('Market',)"], r"DATASETS.NAMES has 'Market'.*nearest: Market1501"),
        (["DATASETS.TESTS", "()"], "DATASETS.TESTS is empty"),
        (["MODEL.LOSSES.NAME", "('Triplet',)"], r"nearest: TripletLoss"),
        (["MODEL.HEADS.POOL_LAYER", "Flatten"], "does not pool a region to one vector; MGRe takes: GlobalAvgPool"),
        (["MODEL.HEADS.POOL_LAYER", "AvgPool"], "MODEL.HEADS.POOL_LAYER has 'AvgPool'"),
        (["MODEL.HEADS.CLS_LAYER", "ArcSoftmx"], "nearest: ArcSoftmax"),
        (["MODEL.HEADS.NECK_FEAT", "beside"], "after, before"),
        (["MODEL.BACKBONE.NORM", "LayerNorm"], "MODEL.BACKBONE.NORM has 'LayerNorm'"),
        (["DATALOADER.SAMPLER_TRAIN", "Balanced"], "nearest: BalancedIdentitySampler"),
        (["SOLVER.OPT", "Adamm"], "nearest: Adam"),
        (["TEST.METRIC", "l1"], "cosine, euclidean"),
        (["TEST.AMP.DTYPE", "float32"], "TEST.AMP.DTYPE has 'float32'.*known: auto, bfloat16, float16"),
        (["MODEL.MGRE.STAGES", "(1, 4)"], r"MODEL.MGRE.STAGES is \(1, 4\); allowed: different ones of 1, 2, 3"),
        (["MODEL.MGRE.STAGES", "(1, 1)"], "MODEL.MGRE.STAGES"),
        (["MODEL.MGRE.REGIONS", "mine"], "known ones: table1"),
        (["MODEL.MGRE.STAGE_WEIGHTS", "(1.0, 1.0)"], "four numbers"),
        (["MODEL.MGRE.LAMBDA", "-1.0"], "MODEL.MGRE.LAMBDA is -1.0; allowed: 0 or more"),
        (["MODEL.MGRE.LOCATION.REID_GRADIENT", "1.5"], "a number from 0 to 1"),
        (["MODEL.MGRE.LOCATION.LOSS_WEIGHT", "-0.5"], "LOSS_WEIGHT"),
        (["MODEL.MGRE.LOCATION.POOL_SIZE", "(8,)"], r"two numbers \(height, width\)"),
        (["DATASETS.KEYPOINT_MIN_SCORE", "30.0"], "KEYPOINT_MIN_SCORE is 30.0"),
        (["INPUT.SIZE_TRAIN", "(256,)"], "INPUT.SIZE_TRAIN"),
        (["SOLVER.IMS_PER_BATCH", "0"], "SOLVER.IMS_PER_BATCH is 0; allowed: more than 0"),
        (["TEST.RERANK.LAMBDA", "2.0"], "TEST.RERANK.LAMBDA"),
        (["MODEL.HEADS.NAME", "EmbeddingHead"], "MODEL.HEADS.NAME MGReHead"),
        (["MODEL.HEADS.NAME", "ClasHead"], "MODEL.HEADS.NAME MGReHead"),
        (["MODEL.META_ARCHITECTURE", "Baseline"], "build_mgre_backbone gives four maps"),
        (["DETERMINISTIC", "True"], "SEED is -1; allowed: 0 or more where DETERMINISTIC is True: a random seed"),
        (["MODEL.DEVICE", "gpu"], "MODEL.DEVICE is 'gpu'; allowed: cpu, cuda"),
        (["MODEL.BACKBONE.DEPTH", "18x", "MODEL.BACKBONE.WITH_NL", "True"], "WITH_NL is True; allowed: False"),
        (["MODEL.MGRE.BACKBONE", "build_mgre_backbone"], "name another one"),
        (["MODEL.MGRE.BACKBONE", "build_timm_backbone", "MODEL.TIMM.NAME", "resnet151"], "nearest: resnet"),
    ],
)  # fmt: skip
def test_a_wrong_key_name_or_value_stops_with_what_is_allowed(overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load(*overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MODEL: {MGRE: {GUIDENCE: True}}", "unknown config key MODEL.MGRE.GUIDENCE in .*nearest: MODEL.MGRE.GUIDANCE"),
        ("SOLVER: [1, 2", "is not a YAML mapping"),
        ("", "is not a YAML mapping"),
        ("just words", "is not a YAML mapping"),
        ("SOLVER: {MAX_EPOCH: soon}", "SOLVER.MAX_EPOCH is 'soon' in .*; allowed: a whole number, like 120"),
        ("DATASETS: {NAMES: CustomReID}", r"allowed: a tuple in quotes, like \"\('CustomReID',\)\""),
        ("SOLVER: 3", "SOLVER"),
        ("_BASE_: nowhere.yml", "_BASE_ '.*nowhere.yml' does not exist"),
    ],
)
def test_a_wrong_config_file_stops_with_one_line(tmp_path, text, message):
    path = tmp_path / "wrong.yml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load(config=str(path))
    assert "\n" not in str(caught.value)
    assert "wrong.yml" in str(caught.value)


def test_a_missing_config_file():
    with pytest.raises(ConfigError, match=r"config file 'configs/MGRe/markt\.yml' does not exist"):
        load(config="configs/MGRe/markt.yml")


def test_cuda_where_there_is_none(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SetupError, match=r"MODEL.DEVICE is 'cuda'.*add MODEL.DEVICE cpu"):
        load_config(BASE)


def test_every_key_says_what_it_means_and_has_an_allowed_default():
    values = dict(leaves(load_config("", ["MODEL.DEVICE", "cpu"])))
    assert len({key.name for key in KEYS}) == len(KEYS)
    for key in KEYS:
        assert key.doc[0].isupper() or key.doc.startswith("lambda"), key.name
        assert key.doc.endswith("."), key.name
        assert values[key.name] == key.default


def rename(monkeypatch, old: str, new: str) -> None:
    monkeypatch.setattr(loading, "RENAMED_KEYS", {old: new})


def test_a_renamed_key_loads_under_its_former_name_with_one_warning(monkeypatch, tmp_path, caplog):
    rename(monkeypatch, "MODEL.MGRE.OLD_STAGES", "MODEL.MGRE.STAGES")
    path = tmp_path / "old.yml"
    path.write_text("MODEL:\n  MGRE:\n    OLD_STAGES: (1, 2)\n")
    for _ in range(2):
        assert load_config(str(path), ["MODEL.DEVICE", "cpu"]).MODEL.MGRE.STAGES == (1, 2)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == (
        f"config key MODEL.MGRE.OLD_STAGES in config file '{path}' is now called MODEL.MGRE.STAGES: rename it"
    )
    assert load("MODEL.MGRE.OLD_STAGES", "(3,)").MODEL.MGRE.STAGES == (3,)


def test_a_renamed_key_is_checked_like_others(monkeypatch):
    rename(monkeypatch, "SOLVER.OLD_EPOCHS", "SOLVER.MAX_EPOCH")
    with pytest.raises(ConfigError, match=r"SOLVER.MAX_EPOCH is 'ten' in the command line; allowed: a whole number"):
        load("SOLVER.OLD_EPOCHS", "ten")
    with pytest.raises(ConfigError, match=r"the command line has both SOLVER.MAX_EPOCH and its former name SOLVER.OLD"):
        load("SOLVER.OLD_EPOCHS", "3", "SOLVER.MAX_EPOCH", "4")


def test_values_that_mgres_keys_allow():
    for overrides in (
        ["DATASETS.PART.SEED", "4294967295"],
        ["MODEL.MGRE.STAGES", "()"],
        ["MODEL.MGRE.LAMBDA", "0"],
        ["DETERMINISTIC", "True", "SEED", "0"],
    ):
        load(*overrides)
    for key, value, allowed in (
        ("DATASETS.PART.NUM_TRAIN_IDS", "-1", r"0 \(all\) or more"),
        ("DATASETS.PART.SEED", "4294967296", r"0 to 2\^32 - 1"),
        ("SOLVER.CHECKPOINTS_KEPT", "-1", "0 or more"),
        ("MODEL.MGRE.LOCATION.HIDDEN_DIM", "0", "more than 0"),
        ("MODEL.MGRE.SOURCE_BLOCKS", "(1, 2)", "three of 1, 2, 3, 4, for the stages 1, 2, 3"),
        ("SEED", "-2", r"-1, or 0 to 2\^32 - 1"),
    ):
        with pytest.raises(ConfigError, match=rf"^{key} is .*; allowed: {allowed}$"):
            load(key, value)
    for key, value, known in (
        ("MODEL.MGRE.BOXES", "keypoint", r"\(nearest: keypoints\); known: keypoints, location, prior"),
        ("DATASETS.UNREADABLE_IMAGES", "skipp", r"\(nearest: skip\); known: skip, stop"),
    ):
        with pytest.raises(ConfigError, match=rf"^{key} has '{value}', which is not known {known}$"):
            load(key, value)
