"""CSVs of users: the dialects of spreadsheets and pandas against the plain form, and faults by their line."""

import csv
import io
import zipfile

import pytest
from mgre.data.csv_list import read_csv
from mgre.data.datasets import build_dataset
from mgre.errors import DataError

from tests.data.csv_example import PLAIN


@pytest.fixture
def read(csv_folder):
    """The splits of a CSV with this content."""

    def call(content: str | bytes):
        (csv_folder / "list.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_csv(str(csv_folder), "list.csv")

    return call


def separated_by(separator: str, **options) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator, **options).writerows(csv.reader(io.StringIO(PLAIN)))
    return text.getvalue()


DIALECTS = {
    "semicolons": separated_by(";"),
    "tabs": separated_by("\t"),
    "vertical bars": separated_by("|"),
    "all quoted": separated_by(",", quoting=csv.QUOTE_ALL),
    "semicolons, all quoted": separated_by(";", quoting=csv.QUOTE_ALL),
    "Excel's first line": "sep=;\r\n" + separated_by(";"),
    "lines of Windows": PLAIN.replace("\n", "\r\n"),
    "lines of an old Mac": PLAIN.replace("\n", "\r"),
    "no last line end": PLAIN.rstrip(),
    "byte-order mark": b"\xef\xbb\xbf" + PLAIN.encode(),
    "UTF-16, little end": b"\xff\xfe" + PLAIN.encode("utf-16-le"),
    "UTF-16, big end, tabs": b"\xfe\xff" + separated_by("\t").encode("utf-16-be"),
    "blank lines": "\n" + PLAIN.replace("\n", "\n\n") + "  \n",
    "rows of empty cells": PLAIN + ",,,\n , ,,\n",
    "empty cells at the end": PLAIN.replace("\n", ",,\n").replace("split,,", "split"),
    "blanks": PLAIN.replace(",", " , "),
    "header in capitals": PLAIN.replace("path,identity,camera,split", "Path,IDENTITY,Camera,Split"),
    "splits in capitals": PLAIN.replace("train", "Train").replace("gallery", "GALLERY"),
    "backslashes": PLAIN.replace("crops/", "crops\\"),
    "backslashes from here": PLAIN.replace("crops/", ".\\crops\\"),
    "other columns": "".join(f"{i},{line}\n" for i, line in enumerate(PLAIN.splitlines())),
    "other order": "\n".join(",".join(reversed(line.split(","))) for line in PLAIN.splitlines()),
    "reserved identities as decimals": PLAIN.replace(",0,", ",0.0,").replace(",-1,", ",-1.0,"),
    "reserved identities with a comma": separated_by(";").replace(";0;", ";0,0;").replace(";-1;", ";-1,00;"),
}


@pytest.mark.parametrize("content", DIALECTS.values(), ids=DIALECTS)
def test_a_dialect_gives_what_the_plain_form_gives(read, content):
    plain, names = read(PLAIN)
    assert [len(plain[split]) for split in ("train", "query", "gallery")] == [2, 2, 2]
    assert names == {0: "0", 1: "kim", 2: "zoe"}
    assert read(content) == (plain, names)


def test_numbers_of_a_column_with_a_gap_give_the_figures_of_whole_ones(cfg, clean_folder, figures):
    """pandas writes 0 and -1 as 0.0 and -1.0 there; taken for people they would stay in the gallery."""
    lines = ["path,identity,camera,split"]
    for split, folder in (("train", "bounding_box_train"), ("query", "query"), ("gallery", "bounding_box_test")):
        for number, path in enumerate(sorted((clean_folder / folder).iterdir())):
            reserved = {0: "-1", 4: "0"}.get(number) if split == "gallery" else None
            identity, camera = reserved or str(int(path.name[:4])), path.name.split("_c")[1].split("s")[0]
            lines.append(f"{folder}/{path.name},{identity},{camera},{split}")
    cfg.DATASETS.CUSTOM.ROOT, cfg.DATASETS.CUSTOM.CSV = str(clean_folder), "list.csv"
    results = []
    for end in ("", ".0"):
        rows = [line.split(",") for line in lines[1:]]
        text = [lines[0], *(f"{path},{identity}{end},{camera}{end},{split}" for path, identity, camera, split in rows)]
        (clean_folder / "list.csv").write_text("\n".join(text))
        dataset = build_dataset(cfg, "CustomReID")
        results.append((figures(), {item[1:] for item in dataset.train}, dataset.training_labels))
    assert results[0] == results[1]
    assert results[0][0][:2] == (9, 8) and 0 < results[0][0][3] < 1


def test_text_that_only_looks_like_a_number_is_itself(read):
    splits, _ = read("path,identity,camera,split\ncrops/a.jpg,007,1.5,train\ncrops/b.jpg,7,v1.0,train\n")
    assert [item[1:] for item in splits["train"]] == [("007", "1.5"), ("7", "v1.0")]


def test_a_file_with_a_backslash_in_its_name_is_that_file(csv_folder, write_image, read):
    write_image(csv_folder / "crops\\a.jpg")
    splits, _ = read("path,identity,camera,split\ncrops\\a.jpg,1,1,train\n")
    assert splits["train"][0][0] == f"{csv_folder}/crops\\a.jpg"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"list\.csv' line 1: no column path, identity, camera, split"),
        ("path,identity,camera\n", r"line 1: no column split; the header must name path, identity, camera, split"),
        ("path:identity:camera:split\n", r"separated by commas, semicolons, tabs, .* \(it is 'path:identity:camera:s"),
        ("img,pid,camid,set\n", r"no column path, .* \(it is 'img, pid, camid, set'\)"),
        ("path,path,identity,camera,split\n", "line 1: two columns named path"),
        (PLAIN.replace("ben,yard", "ben,"), "line 3: camera is empty"),
        (PLAIN.replace("crops/b.jpg,ben,yard,train", "crops/b.jpg,ben"), "line 3: camera, split is empty"),
        (PLAIN.replace("yard,query", "yard,test"), "line 4: split is 'test'; it must be one of train, query, gallery"),
        (PLAIN.replace("kim", "nan"), "line 5: identity is 'nan', which stands for a gap"),
        (PLAIN.replace("ben,yard", "ben,#N/A"), "line 3: camera is '#N/A', which stands for a gap"),
        (PLAIN.replace("anna", "1,0"), "line 2: 5 cells, the header has 4; put a cell with commas in it into double"),
        (PLAIN.replace("d.jpg", "missing.jpg"), r"line 5: image 'crops/missing\.jpg' does not exist"),
        (PLAIN.replace("crops/d.jpg", "crops\\missing.jpg"), r"line 5: image 'crops/missing\.jpg' does not exist"),
        (
            PLAIN.replace("crops/d.jpg", "crops/D.PNG"),
            r"image 'crops/D\.PNG' does not exist in '.*' \(there is 'd\.jpg'\)",
        ),
        (PLAIN.replace("crops/d.jpg", "none/d.jpg"), r"image 'none/d\.jpg' does not exist in '\S+'; mend the path"),
        (PLAIN.replace("crops/d.jpg", "crops/../crops/a.jpg"), r"line 5: 'crops/a\.jpg' is in line 2 already"),
        (PLAIN.replace("crops/d.jpg", "crops\\a.jpg"), r"line 5: 'crops/a\.jpg' is in line 2 already"),
        (PLAIN.replace("crops/d.jpg", "crops/../../d.jpg"), r"line 5: 'crops/\.\./\.\./d\.jpg' is outside"),
        (PLAIN.replace("crops/d.jpg", "..\\d.jpg"), r"line 5: '\.\.\\d\.jpg' is outside"),
        (PLAIN.replace("crops/d.jpg", "C:\\data\\d.jpg"), r"line 5: 'C:\\data\\d\.jpg' is outside"),
        (PLAIN.replace("crops/d.jpg", "/etc/d.jpg"), r"line 5: '/etc/d\.jpg' is outside"),
        (
            PLAIN.replace("ben", "bénédicte").encode("latin-1"),
            "line 3 cannot be read in UTF-8 .*; save it again, in UTF",
        ),
        (b"path,identity,camera,split\n\xff\xfe,1,1,train\n", "line 2 cannot be read in UTF-8"),
        (b"\xff\xfe\x00", "line 1 cannot be read in UTF-16"),
        ("<!DOCTYPE html>\n<title>Sign in", "is a web page, not a list; download it again"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is an Excel workbook, not a list; save it as CSV UTF-8"),
    ],
)
def test_faults_name_the_line(csv_folder, read, content, message):
    with pytest.raises(DataError, match=message) as caught:
        read(content)
    assert str(csv_folder / "list.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_workbook_under_the_name_of_a_csv(csv_folder):
    with zipfile.ZipFile(csv_folder / "list.csv", "w") as workbook:
        workbook.writestr("xl/workbook.xml", "<workbook/>")
    with pytest.raises(DataError, match=r"list.csv' is an Excel workbook, not a list; save it as CSV UTF-8"):
        read_csv(str(csv_folder), "list.csv")


def test_a_missing_csv(csv_folder):
    with pytest.raises(DataError, match=r"other\.csv' does not exist; its path is relative to DATASETS.CUSTOM.ROOT"):
        read_csv(str(csv_folder), "other.csv")
    with pytest.raises(DataError, match=r"crops' is a folder, not a list"):
        read_csv(str(csv_folder), "crops")
