import csv

from mgre.reproduction.tables import Row, differences, relative, save_table


def test_means_spreads_and_differences_by_hand(tmp_path):
    rows = [
        Row("one", "A", {0: {"mAP": 80.0, "Rank-1": 90.0}}, {"mAP": 85.8, "Rank-1": 94.3}),
        Row("three", "A", {0: {"mAP": 80.0}, 1: {"mAP": 82.0}, 5: {"mAP": 84.0}}, {"mAP": 81.0}),
        Row("only the paper", "A", {}, {"mAP": 89.0}),
        Row("only ours", "B", {0: {"mAP": 50.04}}),
    ]
    files = save_table(rows, tmp_path / "new" / "table4", title="Table 4")
    assert [path.name for path in files] == ["table4.md", "table4.csv"]
    with files[1].open(newline="") as file:
        one, three, paper, ours = csv.DictReader(file)
    assert (one["mAP, %"], one["mAP, the paper's"], one["mAP, difference"]) == ("80.0", "85.8", "-5.8")
    assert one["Rank-1, difference"] == "-4.3" and one["seeds"] == "1" and one["mAP, deviation"] == ""
    assert (three["mAP, %"], three["mAP, deviation"], three["mAP, difference"]) == ("82.0", "2.0", "1.0")
    assert three["seeds"] == "3" and three["Rank-1, %"] == ""
    assert (paper["mAP, %"], paper["mAP, the paper's"], paper["mAP, difference"], paper["seeds"]) == (
        "",
        "89.0",
        "",
        "",
    )
    assert (ours["mAP, %"], ours["mAP, the paper's"], ours["data set"]) == ("50.04", "", "B")
    assert "Rank-5, %" not in one and "mINP, %" not in one
    text = files[0].read_text()
    assert text.startswith("Table 4\n\n|") and "deviation" not in text
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[4:]]
    assert lines[0] == ["one", "A", "1", "80.0", "85.8", "-5.8", "90.0", "94.3", "-4.3"]
    assert lines[1] == ["three", "A", "3", "82.0 ± 2.0", "81.0", "+1.0", "", "", ""]
    assert lines[3] == ["only ours", "B", "1", "50.0", "", "", "", "", ""]


def test_differences_are_those_of_the_same_seed():
    clean = {0: {"mAP": 90.1, "Rank-1": 96.2}, 1: {"mAP": 50.0}, 2: {"mAP": 70.0}}
    occluded = {1: {"mAP": 40.0}, 0: {"mAP": 85.9, "Rank-1": 94.0}, 7: {"mAP": 1.0}}
    found = differences(clean, occluded)
    assert {seed: {m: round(v, 6) for m, v in fall.items()} for seed, fall in found.items()} == {
        0: {"mAP": -4.2, "Rank-1": -2.2},
        1: {"mAP": -10.0},
    }
    assert differences({0: {}}, {0: {"mAP": 1.0}}) == {0: {}}


def test_relative_falls_by_hand():
    clean = {0: {"mAP": 80.0, "Rank-1": 90.0}, 1: {"mAP": 50.0, "Rank-1": 0.0}}
    fall = {0: {"mAP": -20.0, "Rank-1": -9.0}, 1: {"mAP": -5.0, "Rank-1": 0.0}}
    assert relative(fall, clean) == {0: {"mAP": -25.0, "Rank-1": -10.0}, 1: {"mAP": -10.0}}
    assert relative({0: {}}, {0: {}}) == {0: {}}
