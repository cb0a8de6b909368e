"""Published weight files: downloaded once, checked, and kept in the user's cache."""

import hashlib
import http.client
import logging
import os
import shutil
import ssl
import tempfile
import urllib.error
import zipfile
import zlib
from urllib.parse import urlsplit

import torch

from mgre.errors import SetupError, WeightsError
from mgre.system.file_kinds import foreign_kind

logger = logging.getLogger(__name__)

# The errors of urllib when the network or the server fails. Caught before OSError, of which most are subclasses.
NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


def download(url: str, *, sha256: str, size: int | None = None, member: str = "") -> str:
    """The path of a published file in the user's cache, downloaded if it is not there yet.

    The cache is the folder ``mgre`` of ``torch.hub.get_dir()``. A file gets its final name only after its checksum was
    found right, so a partial download never stays.

    Args:
        url: where the file is published, http or https.
        sha256: of the file, in hex: all 64 digits or the first ones.
        size: approximate size of the file in bytes, for the log.
        member: for a .zip archive, the name (without folders) of the file to extract. Then ``sha256`` and ``size`` are
            those of the extracted file, and only this file is kept, under the archive's name with its own suffix.

    Raises:
        WeightsError: there is no network, no such file at ``url``, or another file than the published one.
        SetupError: the cache cannot be written.
    """
    folder = os.path.join(torch.hub.get_dir(), "mgre")
    name = os.path.basename(urlsplit(url).path)
    kept = os.path.join(folder, os.path.splitext(name)[0] + os.path.splitext(member)[1] if member else name)
    if os.path.isfile(kept):
        if file_sha256(kept).startswith(sha256):
            return kept
        logger.warning("'%s' is not the published file: downloading it again", kept)
    where = f" ('{member}' in the archive)" if member else ""
    by_hand = f"download it elsewhere and put it{where} at '{kept}', or give a weight file with --weights"
    if urlsplit(url).scheme not in ("http", "https"):
        raise WeightsError(f"cannot download '{url}', which is neither http nor https: {by_hand}")
    about = f" (about {size / 1e6:.0f} MB)" if size else ""
    logger.info("Downloading '%s'%s from %s", kept, about, url)
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:  # in the cache, so that the rename is atomic
            fetched = os.path.join(scratch, name)
            torch.hub.download_url_to_file(url, fetched)
            kind = foreign_kind(fetched)
            if kind not in ("", "a zip archive"):  # torch's weight files are zip archives
                raise ValueError(f"it is {kind}")
            if member:
                fetched = _extract(fetched, member)
            found = file_sha256(fetched)
            if not found.startswith(sha256):
                raise ValueError(f"{os.path.getsize(fetched)} bytes with sha256 {found[:16]}..., not {sha256[:16]}...")
            os.replace(fetched, kept)
    except NETWORK_ERRORS as error:
        raise WeightsError(f"cannot download '{url}' ({error}): {by_hand}") from error
    except OSError as error:
        raise SetupError(
            f"cannot write to the weight cache '{folder}' ({error.strerror}): make room and give permission there, "
            "or set TORCH_HOME to another folder"
        ) from error
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise WeightsError(
            f"what came from '{url}' is not the published file, or not all of it ({error}): try again, or {by_hand}"
        ) from error
    return kept


def _extract(archive: str, member: str) -> str:
    """Extract the only file named ``member``, from any folder of the .zip archive, into the archive's own folder."""
    path = os.path.join(os.path.dirname(archive), member)  # a path from the archive could lead out of this folder
    with zipfile.ZipFile(archive) as file:
        names = [name for name in file.namelist() if name.rsplit("/", 1)[-1] == member]
        if len(names) != 1:
            raise ValueError(f"an archive with {len(names)} files named '{member}', not one")
        with file.open(names[0]) as source, open(path, "wb") as target:
            shutil.copyfileobj(source, target)
    return path


def file_sha256(path: str) -> str:
    """SHA-256 of a file's content, 64 hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
