import struct
import zipfile

import pytest
from mgre.system.file_kinds import archive_fault, foreign_kind


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\r\n  <!doctype HTML>", "a web page"),
        (b"\xef\xbb\xbf<html lang=en>", "a web page"),
        (b"<script>location='/login'</script>", "a web page"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "a pointer of Git LFS (`git lfs pull` fetches the file itself)",
        ),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook"),
        (b"", "empty (0 bytes)"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", ""),
        (b"path,identity,camera,split\n", ""),
        (b"pk of a list\n", ""),
    ],
)
def test_kinds_by_the_first_bytes(tmp_path, content, kind):
    (tmp_path / "a.jpg").write_bytes(content)
    assert foreign_kind(str(tmp_path / "a.jpg")) == kind


def test_folders_archives_and_nothing(tmp_path):
    assert foreign_kind(str(tmp_path)) == "a folder"
    assert foreign_kind(str(tmp_path / "none")) == ""
    for name, member, kind in (("a.zip", "a.jpg", "a zip archive"), ("b.xlsx", "xl/workbook.xml", "an Excel workbook")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(member, "content")
        assert foreign_kind(str(tmp_path / name)) == kind


def test_archives(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jpg", b"1234567890" * 40)
    content = path.read_bytes()
    assert archive_fault(str(path)) == ""
    for end in (-1, -40, 200, 10):
        path.write_bytes(content[:end])
        assert archive_fault(str(path)).startswith(f"is cut short ({len(content[:end])} bytes, and ")
    path.write_bytes(b"<html><title>Google Drive - Quota exceeded</title>")
    assert archive_fault(str(path)) == "is a web page, not an archive"
    (tmp_path / "set.7z").write_bytes(b"7z\xbc\xaf\x27\x1c")
    assert archive_fault(str(tmp_path / "set.7z")) == ""


def test_a_damaged_directory_of_an_archive_is_no_error(tmp_path):
    """A zip archive that says that it goes on in a second file, which zipfile refuses to look at."""
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 2)
    (tmp_path / "model.pth").write_bytes(locator + b"PK\x05\x06" + bytes(18))
    assert foreign_kind(str(tmp_path / "model.pth")) == ""
