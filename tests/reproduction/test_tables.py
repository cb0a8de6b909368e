import csv

from mgre.reproduction.tables import Row, falls, save_table


def test_means_spreads_and_differences_by_hand(tmp_path):
    rows = [
        Row("one", "A", [{"mAP": 80.0, "Rank-1": 90.0}], {"mAP": 85.8, "Rank-1": 94.3}),
        Row("three", "A", [{"mAP": 80.0}, {"mAP": 82.0}, {"mAP": 84.0}], {"mAP": 81.0}),
        Row("only the paper", "A", [], {"mAP": 89.0}),
        Row("only ours", "B", [{"mAP": 50.04}]),
    ]
    files = save_table(rows, tmp_path / "new" / "table4", title="Table 4")
    assert [path.name for path in files] == ["table4.md", "table4.csv"]
    with files[1].open(newline="") as file:
        one, three, paper, ours = csv.DictReader(file)
    assert (one["mAP, %"], one["mAP, the paper's"], one["mAP, difference"]) == ("80.0", "85.8", "-5.8")
    assert one["Rank-1, difference"] == "-4.3" and one["seeds"] == "1"
    assert (three["mAP, %"], three["mAP, difference"], three["seeds"]) == ("82.0 ± 2.0", "+1.0", "3")
    assert three["Rank-1, %"] == ""
    assert (paper["mAP, %"], paper["mAP, the paper's"], paper["mAP, difference"], paper["seeds"]) == (
        "",
        "89.0",
        "",
        "",
    )
    assert (ours["mAP, %"], ours["mAP, the paper's"], ours["data set"]) == ("50.0", "", "B")
    assert "Rank-5, %" not in one and "mINP, %" not in one
    text = files[0].read_text()
    assert text.startswith("Table 4\n\n|") and "| 82.0 ± 2.0 " in text


def test_falls_by_hand():
    clean = [{"mAP": 90.1, "Rank-1": 96.2}, {"mAP": 90.0}]
    occluded = [{"mAP": 85.9, "Rank-1": 94.0}, {"mAP": 80.0}, {"mAP": 1.0}]
    found = falls(clean, occluded)
    assert [{metric: round(value, 6) for metric, value in fall.items()} for fall in found] == [
        {"mAP": -4.2, "Rank-1": -2.2},
        {"mAP": -10.0},
    ]
    assert falls([{}], [{"mAP": 1.0}]) == [{}]
