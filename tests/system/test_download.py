"""Downloads, from a web server of our own."""

import hashlib
import http.server
import io
import os
import re
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from mgre.errors import SetupError, WeightsError
from mgre.system.download import download, file_sha256

CONTENT = bytes(range(256)) * 300
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """A web server: ``files`` by path, of which those in ``cut`` end in the middle; ``requests`` made to it."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.requests.append(self.path)
            path = self.path.split("?")[0]
            if path not in served.files:
                return self.send_error(404)
            content = served.files[path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if path in served.cut else content)

        def log_message(self, *args: object) -> None:
            pass

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as listener:
        served = Server(f"http://127.0.0.1:{listener.server_port}")
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        listener.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "torch" / "hub" / "mgre"


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize("digits", [8, 64])
def test_download_happens_once(server: Server, cache: Path, digits: int):
    server.files["/a/net.pth"] = CONTENT
    paths = [download(f"{server.url}/a/net.pth?v=1", sha256=SHA256[:digits], size=len(CONTENT)) for _ in range(2)]
    assert paths == [str(cache / "net.pth")] * 2
    assert (cache / "net.pth").read_bytes() == CONTENT
    assert os.listdir(cache) == ["net.pth"]
    assert server.requests == ["/a/net.pth?v=1"]


def test_a_wrong_file_in_the_cache_is_replaced(server: Server, cache: Path):
    server.files["/net.pth"] = CONTENT
    cache.mkdir(parents=True)
    (cache / "net.pth").write_bytes(b"cut")
    assert Path(download(f"{server.url}/net.pth", sha256=SHA256)).read_bytes() == CONTENT


def test_the_log_says_where_from_how_large_and_where_to(server: Server, cache: Path, caplog: pytest.LogCaptureFixture):
    server.files["/net.pth"] = CONTENT
    with caplog.at_level("INFO", logger="mgre.system.download"):
        download(f"{server.url}/net.pth", sha256=SHA256, size=54_330_655)
    assert caplog.messages == [f"Downloading '{cache / 'net.pth'}' (about 54 MB) from {server.url}/net.pth"]
    assert len(server.requests) == 1


def test_the_log_comes_before_the_download(server: Server, caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO", logger="mgre.system.download"), pytest.raises(WeightsError, match="404"):
        download(f"{server.url}/none.pth", sha256=SHA256)
    assert f"from {server.url}/none.pth" in caplog.text


def test_another_file_than_the_published_is_not_kept(server: Server, cache: Path):
    server.files["/net.pth"] = b"a page that asks for a password"
    with pytest.raises(WeightsError, match=rf"not the published file.*31 bytes.*not {SHA256[:16]}.*--weights"):
        download(f"{server.url}/net.pth", sha256=SHA256)
    assert os.listdir(cache) == []


@pytest.mark.parametrize(("name", "member"), [("net.pth", ""), ("net.zip", "end2end.onnx")])
def test_a_web_page_is_called_so(server: Server, cache: Path, name: str, member: str):
    server.files[f"/{name}"] = b"\n<!DOCTYPE html><html><title>Sign in</title></html>"
    with pytest.raises(
        WeightsError, match=r"is not the published file, .* \(it is a web page\): try again, or download"
    ):
        download(f"{server.url}/{name}", sha256=SHA256, member=member)
    assert os.listdir(cache) == []


@pytest.mark.parametrize(("name", "member"), [("net.pth", ""), ("net.zip", "end2end.onnx")])
def test_a_cut_connection_leaves_nothing(server: Server, cache: Path, name: str, member: str):
    server.files[f"/{name}"] = zipped({member: CONTENT}) if member else CONTENT
    server.cut.add(f"/{name}")
    with pytest.raises(WeightsError, match="not all of it"):
        download(f"{server.url}/{name}", sha256=SHA256, member=member)
    assert os.listdir(cache) == []


def test_without_the_file_or_the_network_the_way_by_hand_is_told(server: Server, cache: Path):
    by_hand = rf"put it at '{re.escape(str(cache / 'net.pth'))}', or give a weight file with --weights$"
    with pytest.raises(WeightsError, match=rf"cannot download '{server.url}/net.pth' \(HTTP Error 404.*{by_hand}"):
        download(f"{server.url}/net.pth", sha256=SHA256)
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as listener:
        url = f"http://127.0.0.1:{listener.server_port}/net.pth"
    with pytest.raises(WeightsError, match=rf"cannot download '{url}' .*refused.*{by_hand}"):
        download(url, sha256=SHA256)
    assert os.listdir(cache) == []


def test_only_web_addresses(server: Server, tmp_path: Path):
    (tmp_path / "net.pth").write_bytes(CONTENT)
    with pytest.raises(WeightsError, match="neither http nor https"):
        download((tmp_path / "net.pth").as_uri(), sha256=SHA256)


def test_a_cache_that_cannot_be_written(server: Server, cache: Path):
    server.files["/net.pth"] = CONTENT
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where the folder should be")
    with pytest.raises(SetupError, match=rf"cannot write to the weight cache '{re.escape(str(cache))}'.*TORCH_HOME"):
        download(f"{server.url}/net.pth", sha256=SHA256)


@pytest.mark.parametrize("name", ["end2end.onnx", "2023/rtmpose/end2end.onnx", "../../end2end.onnx"])
def test_a_member_of_an_archive_is_kept_by_its_suffix(server: Server, cache: Path, name: str, tmp_path: Path):
    server.files["/net.zip"] = zipped({"deploy.json": b"{}", name: CONTENT})
    paths = [download(f"{server.url}/net.zip", sha256=SHA256, member="end2end.onnx") for _ in range(2)]
    assert paths == [str(cache / "net.onnx")] * 2
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["net.onnx"]
    assert (cache / "net.onnx").read_bytes() == CONTENT
    assert server.requests == ["/net.zip"]


@pytest.mark.parametrize("names", [["other.onnx"], ["a/end2end.onnx", "b/end2end.onnx"]])
def test_an_archive_without_the_one_member(server: Server, cache: Path, names: list[str]):
    server.files["/net.zip"] = zipped(dict.fromkeys(names, CONTENT))
    found = len([name for name in names if name.endswith("end2end.onnx")])
    with pytest.raises(WeightsError, match=rf"{found} files named 'end2end.onnx', not one"):
        download(f"{server.url}/net.zip", sha256=SHA256, member="end2end.onnx")
    assert os.listdir(cache) == []


def test_file_sha256(tmp_path: Path):
    (tmp_path / "abc").write_bytes(b"abc")  # the example of FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(str(tmp_path / "abc")) == expected
