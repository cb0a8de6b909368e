"""Table 8's counts against the paper's; the measuring on small models."""

import csv

import pytest
import torch
from mgre.errors import ConfigError, SetupError
from mgre.reproduction import cost
from mgre.reproduction.cost import TABLE8, Contender, CostRow, analyse, build_contender, count_parameters
from torch import nn

pytestmark = pytest.mark.usefixtures("quick_random_weights")

MARKET = "configs/MGRe/market.yml"
PEERS = {
    "Baseline + ResNet-101": 6.50,
    "Baseline + ResNet-152": 8.95,
    "Baseline + ResNeSt-101": 7.87,
    "Baseline + ResNeSt-200": 12.61,
    "Baseline + ResNeSt-269": 18.06,
}
# Bottleneck ResNets: 25.557032 M (50 layers) and 44.549160 M (101) with ImageNet's classifier of 2048 x 1000 + 1000.
# The BN neck instead of it: weight and bias of 2048.
NECK = 2 * 2048
PARAMETERS = {
    "Baseline + ResNet-50-IBN": 25_557_032 - 2_049_000 + NECK,
    "Baseline + ResNet-101": 44_549_160 - 2_049_000 + NECK,
}
SMALL = (
    *("MODEL.BACKBONE.DEPTH", "18x", "MODEL.BACKBONE.FEAT_DIM", "512", "MODEL.HEADS.EMBEDDING_DIM", "8"),
    *("INPUT.SIZE_TEST", "(64, 32)"),
)
SMALL_BASELINE = (
    *("MODEL.META_ARCHITECTURE", "Baseline", "MODEL.BACKBONE.NAME", "build_resnet_backbone"),
    *("MODEL.HEADS.NAME", "EmbeddingHead"),
)
CONTENDERS = (Contender("small MGRe", (), 7.0, 3.0), Contender("small Baseline", SMALL_BASELINE, None, 2.0))


def contender(name: str) -> Contender:
    return next(c for c in TABLE8 if c.name == name)


@pytest.mark.parametrize("name", PEERS)
def test_the_peers_cost_what_the_paper_says(name, caplog):
    analysis = analyse(build_contender(MARKET, contender(name), device="cpu"), (256, 128))
    assert analysis.total() / 1e9 == pytest.approx(PEERS[name], rel=0.01)
    assert contender(name).paper_multiply_adds == PEERS[name]
    # Every operation is counted, or is one of those named to have no multiply-adds.
    assert not analysis.unsupported_ops() and "Unsupported operator" not in caplog.text


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_those_of_the_published_networks_and_no_classifier(name):
    model = build_contender(MARKET, contender(name), device="cpu")
    assert count_parameters(model, analyse(model, (64, 32))) == PARAMETERS[name]


def test_what_does_not_run_is_not_counted(build_small):
    model = build_small().eval()
    before = analyse(model, (64, 32))
    expected = before.total(), count_parameters(model, before)
    model.idle = nn.Linear(1000, 1000)
    after = analyse(model, (64, 32))
    assert (after.total(), count_parameters(model, after)) == expected


def test_an_operation_nobody_named_is_warned_of(build_small, caplog, monkeypatch):
    monkeypatch.setattr(cost, "OPERATIONS_WITHOUT_MULTIPLY_ADDS", ())
    analyse(build_small().eval(), (64, 32)).total()
    assert "Unsupported operator aten::max_pool2d" in caplog.text


def test_rows_hold_counts_latencies_and_ratios():
    threads = torch.get_num_threads()
    mgre, baseline = cost.measure_costs(
        MARKET,
        device="cpu",
        batch_size=2,
        repeats=2,
        threads=1,
        overrides=SMALL,
        contenders=CONTENDERS,
        reference="small Baseline",
    )
    assert torch.get_num_threads() == threads
    assert (mgre.name, baseline.name) == ("small MGRe", "small Baseline")
    assert (mgre.paper_multiply_adds, baseline.paper_multiply_adds) == (7.0, None)
    assert (mgre.paper_latency_ratio, baseline.paper_latency_ratio) == (1.5, 1.0)
    assert mgre.multiply_adds > baseline.multiply_adds > 0 and mgre.parameters > baseline.parameters
    # ResNet-18 without its classifier has 11.176512 M, the embedding 512 x 8 and its BN neck 16.
    assert baseline.parameters * 1e6 == pytest.approx(11_176_512 + 512 * 8 + 16)
    assert baseline.latency > 0 and baseline.latency_ratio == 1
    assert mgre.latency_ratio == pytest.approx(mgre.latency / baseline.latency)


class Clock(nn.Module):
    """Takes the next of given times, on the clock that the test reads."""

    def __init__(self, name, times, calls):
        super().__init__()
        self.name, self.times, self.calls, self.device = name, iter(times), calls, torch.device("cpu")

    def forward(self, batch):
        assert batch["images"].shape == (3, 3, 4, 2) and torch.is_inference_mode_enabled()
        self.calls.append(self.name)
        Clock.now += next(self.times)


def test_models_take_turns_and_the_first_round_is_left_out(monkeypatch):
    Clock.now, calls = 0.0, []
    monkeypatch.setattr(cost.time, "perf_counter", lambda: Clock.now)
    models = [Clock("a", [99, 5, 1, 2], calls), Clock("b", [99, 40, 20, 30], calls)]
    images = torch.zeros(3, 3, 4, 2)
    assert cost.measure_latencies(models, [images, images], repeats=3) == [2, 30]
    assert calls == ["a", "b"] * 4


def test_the_table_is_written_in_markdown_and_csv(tmp_path):
    rows = [
        CostRow("MGRe", 5.8, 34.2, 0.5, 1.25, 7.89, 1.79, 1.689),
        CostRow("MGN", 9.337, 68.8, 0.6, 1.5, None, None, None),
    ]
    setting = cost.describe_setting("cpu", batch_size=8, threads=2)
    markdown, table = cost.save_costs(rows, tmp_path / "new" / "table8", setting=setting)
    assert (markdown, table) == (tmp_path / "new" / "table8.md", tmp_path / "new" / "table8.csv")
    lines = markdown.read_text().splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert cells[0][-4:-1] == ["paper: multiply-adds (G)", "paper: latency (s)", "paper: latency ratio"]
    assert cells[2] == ["MGRe", "5.80", "34.20", "0.500", "1.25", "7.89", "1.79", "1.69", "-26.5"]
    assert cells[3] == ["MGN", "9.34", "68.80", "0.600", "1.50", "", "", "", ""]
    assert (
        "batches of 8 images" in lines[-1]
        and "2 threads" in lines[-1]
        and "ratios to Baseline + ResNet-101" in lines[-1]
    )
    with table.open() as file:
        read = list(csv.DictReader(file))
    assert float(read[0]["multiply_adds"]) == 5.8 and read[1]["paper_latency"] == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"repeats": 0}, "repeats is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"reference": "ResNet-1001"}, "'ResNet-1001' is none of the models"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_built(options, message, monkeypatch):
    monkeypatch.setattr(cost, "build_model", None)
    with pytest.raises(ConfigError, match=message):
        cost.measure_costs(MARKET, device="cpu", **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_a_missing_device_is_an_error_in_one_line():
    with pytest.raises(SetupError, match="sees no CUDA device"):
        cost.measure_costs(MARKET, device="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_costs_are_measured_on_a_gpu():
    rows = cost.measure_costs(
        MARKET,
        device="cuda",
        batch_size=2,
        repeats=1,
        overrides=SMALL,
        contenders=CONTENDERS,
        reference="small Baseline",
    )
    assert all(row.latency > 0 for row in rows)
    assert torch.cuda.get_device_name() in cost.describe_setting("cuda", batch_size=2)
