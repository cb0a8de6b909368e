"""What data.csv_list does not use; the dialects are in tests/data/test_csv_list.py."""

import pytest
from mgre.errors import DataError
from mgre.reading.csv_table import read_table


def test_other_columns_are_given_by_name(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("Frame; Coat ;;x\n3;red;;1,5\n\n4;;a\n")
    rows = list(read_table(str(path), ("frame",), with_others=True))
    assert [(row.line, row.cells) for row in rows] == [
        (2, {"frame": "3", "coat": "red", "x": "1,5"}),
        (4, {"frame": "4", "coat": "", "x": ""}),
    ]
    assert rows[1].where == f"'{path}' line 4"
    assert [row.cells for row in read_table(str(path), ("frame",))] == [{"frame": "3"}, {"frame": "4"}]


def test_two_other_columns_of_one_name_are_refused_where_they_are_asked_for(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("path,coat,Coat\na.jpg,red,blue\n")
    with pytest.raises(DataError, match=r"t.csv' line 1: two columns named coat; rename one of them"):
        list(read_table(str(path), ("path",), with_others=True))
    assert len(list(read_table(str(path), ("path",)))) == 1
