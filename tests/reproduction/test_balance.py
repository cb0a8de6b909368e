"""The choice of the balance, on grids whose answer is plain by hand."""

import pytest
from mgre.reproduction import balance
from mgre.reproduction.balance import choose_balance, plot_balance, pooled_deviation
from mgre.reproduction.tables import Row
from mgre.visualization import new_figure


def make_row(precisions, overlaps):
    found = {
        seed: {"mAP": precision, "IoU/mean": overlap}
        for seed, (precision, overlap) in enumerate(zip(precisions, overlaps, strict=True))
    }
    return Row("a setting", "a set", found)


def make_grid(**settings):
    """By "w<weight>g<gradient>": (mAP of each seed, IoU of each seed), or a number for the one seed."""
    grid = {}
    for name, (precisions, overlaps) in settings.items():
        weight, gradient = name.removeprefix("w").split("g")
        seeds = [[value] if isinstance(value, float) else value for value in (precisions, overlaps)]
        grid[float(weight), float(gradient)] = make_row(*seeds)
    return grid


def test_the_weight_with_the_highest_map_is_taken():
    grid = make_grid(w1g0=(50.0, 0.60), w10g0=(51.0, 0.60), w1g1=(52.0, 0.60), w10g1=(54.0, 0.60), w30g1=(53.0, 0.60))
    text = choose_balance(grid)
    assert text.startswith("location loss x 10 with ReID gradient 1.")
    assert "x 10 at gradient 0 (51.0 mAP, mean IoU 0.60)" in text
    assert "x 10 at gradient 1 (54.0 mAP, mean IoU 0.60); gradient 1 leads by 3.0 mAP" in text


def test_a_weight_that_loses_overlap_is_not_taken():
    # x 1 at gradient 1 is best in mAP, and its boxes are far below those of gradient 0.
    grid = make_grid(w1g0=(50.0, 0.70), w1g1=(56.0, 0.50), w10g1=(54.0, 0.70))
    text = choose_balance(grid)
    assert text.startswith("location loss x 10 with ReID gradient 1.")
    assert "where the mean IoU is 0.68 or more" in text


def test_overlap_within_the_tolerance_is_kept():
    grid = make_grid(w1g0=(50.0, 0.70), w1g1=(56.0, 0.681), w10g1=(54.0, 0.70))
    assert choose_balance(grid).startswith("location loss x 1 with ReID gradient 1.")
    grid = make_grid(w1g0=(50.0, 0.70), w1g1=(56.0, 0.679), w10g1=(54.0, 0.70))
    assert choose_balance(grid).startswith("location loss x 10 with ReID gradient 1.")


def test_the_overlap_is_compared_with_gradient_0_at_its_best_weight():
    # At x 100 gradient 0 has the best boxes, at a mAP that nobody would choose.
    grid = make_grid(w1g0=(50.0, 0.70), w100g0=(40.0, 0.80), w1g1=(56.0, 0.69), w100g1=(41.0, 0.80))
    assert choose_balance(grid).startswith("location loss x 1 with ReID gradient 1.")


def test_where_no_weight_keeps_the_overlap_the_one_that_loses_least_is_taken():
    grid = make_grid(w1g0=(50.0, 0.80), w1g1=(56.0, 0.50), w10g1=(54.0, 0.60), w30g1=(52.0, 0.70))
    assert choose_balance(grid).startswith("location loss x 30 with ReID gradient 1.")


@pytest.mark.parametrize(
    ("precisions", "expected"),
    [
        ([54.0, 56.0], "location loss x 1 with ReID gradient 1."),  # a tie
        ([54.9, 56.9], "location loss x 1 with ReID gradient 1."),  # by 0.9, less than the spread of sqrt(2)
        ([56.0, 58.0], "location loss x 3 with ReID gradient 0."),  # by 2.0, more than it
    ],
)
def test_gradient_0_is_taken_where_it_leads_by_more_than_the_spread(precisions, expected):
    grid = make_grid(w3g0=(precisions, [0.7, 0.7]), w1g1=([54.0, 56.0], [0.7, 0.7]))
    text = choose_balance(grid)
    assert text.startswith(expected)
    assert text.endswith("and the spread is 1.4")


def test_one_seed_has_no_spread():
    grid = make_grid(w3g0=(54.1, 0.7), w1g1=(54.0, 0.7))
    text = choose_balance(grid)
    assert text.startswith("location loss x 3 with ReID gradient 0.")
    assert text.endswith("gradient 0 leads by 0.1 mAP, and the spread is 0.0")


@pytest.mark.parametrize("settings", [{}, {"w1g1": (54.0, 0.7)}, {"w1g0": (54.0, 0.7)}])
def test_an_incomplete_grid_chooses_nothing(settings):
    assert choose_balance(make_grid(**settings)) == "not enough was run to choose"
    rows = {(1.0, 0.0): Row("not run", "a set"), (1.0, 1.0): Row("no IoU", "a set", {0: {"mAP": 60.0}})}
    assert choose_balance(make_grid(**settings) | rows) == "not enough was run to choose"


def test_settings_that_were_not_run_leave_the_others_to_be_chosen_from():
    grid = make_grid(w1g0=(50.0, 0.7), w10g1=(54.0, 0.7)) | {(100.0, 1.0): Row("not run", "a set")}
    found = choose_balance(grid)
    assert found.startswith("of the 2 of 3 settings that were run: location loss x 10 with ReID gradient 1.")


def test_the_pooled_deviation_is_the_root_of_the_mean_variance():
    # Variances 2 (of 1 and 3) and 8 (of 0 and 4); one seed has none.
    rows = [make_row([1.0, 3.0], [0, 0]), make_row([0.0, 4.0], [0, 0]), make_row([9.0], [0])]
    assert pooled_deviation(rows, "mAP") == pytest.approx(5**0.5)
    assert pooled_deviation(rows[2:], "mAP") == 0.0


def test_the_plot_has_a_line_for_each_gradient_with_the_deviations(tmp_path, monkeypatch):
    figure = new_figure(figsize=(9, 3.5))
    monkeypatch.setattr(balance, "new_figure", lambda **kwargs: figure)
    grid = make_grid(w10g1=([54.0, 56.0], [0.6, 0.6]), w1g1=(52.0, 0.5), w1g0=(50.0, 0.7))
    grid[100.0, 0.0] = Row("not run", "a set")
    path = plot_balance({"a set": grid}, tmp_path / "balance.png")
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 1000
    for axes, of_gradient_1 in zip(figure.axes, ([55.0, 52.0], [0.6, 0.5]), strict=True):
        cut, joint = axes.containers
        assert [c.get_label() for c in (cut, joint)] == ["a set, ReID gradient 0", "a set, ReID gradient 1"]
        assert cut.lines[0].get_xdata().tolist() == [1.0]
        assert joint.lines[0].get_xdata().tolist() == [10.0, 1.0]
        assert joint.lines[0].get_ydata().tolist() == pytest.approx(of_gradient_1)
    (bars,) = figure.axes[0].containers[1].lines[2]
    assert bars.get_segments()[0][:, 1].tolist() == pytest.approx([55 - 2**0.5, 55 + 2**0.5])
