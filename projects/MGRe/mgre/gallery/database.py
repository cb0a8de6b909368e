"""The gallery's SQLite file: which vectors there are and what is known of them. What it says is the truth.

It is kept with a rollback journal, so that a change is either whole or not there, whatever stops the process. A change
becomes valid only when no process reads, so a reader's view stays as it is until the end of its transaction, and so do
all rows of vectors in it. Deleted text is overwritten (``secure_delete``).
"""

import hashlib
import os
import re
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from typing import Any
from urllib.parse import quote

import numpy as np

from mgre.errors import DataError, SetupError
from mgre.system.files import write_atomically

FILE_NAME = "gallery.sqlite"
# "MGRe" in ASCII marks the file, and a change of the tables or of the other files' layout needs a new format number.
APPLICATION, FORMAT = 0x4D475265, 1
# Seconds that a process waits for another one's change or search.
PATIENCE = 10.0
# Names of the other files, by the column of the state; the derived ones are empty where there are none.
_NAMES = {
    "vectors": re.compile(r"vectors-[0-9a-f]+\.f32"),
    "compact": re.compile(r"(compact-[0-9a-f]+\.f32)?"),
    "directions": re.compile(r"(directions-[0-9a-f]+\.npy)?"),
}

_LOOK = "look at the free space and the permissions of its folder"

_TABLES = """
CREATE TABLE entries (
    slot INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, camera TEXT, time REAL, time_text TEXT, metadata TEXT NOT NULL,
    path TEXT, checksum INTEGER NOT NULL
);
CREATE INDEX by_camera ON entries (camera);
CREATE INDEX by_time ON entries (time);
CREATE TABLE removed (digest BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE holes (slot INTEGER PRIMARY KEY, erased INTEGER NOT NULL);
"""


@dataclass(frozen=True)
class State:
    """The table of one row that says what the other files are.

    Attributes:
        dimension: D.
        fingerprint, record: of the model that the vectors are of.
        salt: hashed with the ids of removed entries, which are not kept themselves.
        next_id: where made ids go on.
        vectors: name of the file of vectors.
        slots: rows in use in it, holes included. A slot is never used for a second vector.
        compact, directions: names of the files that are derived from the vectors; empty where there are none.
        compact_at: slots when the directions were last looked for.
        changes: counts the changes.
    """

    dimension: int
    fingerprint: str
    record: str
    vectors: str
    salt: bytes
    next_id: int = 1
    slots: int = 0
    compact: str = ""
    directions: str = ""
    compact_at: int = 0
    changes: int = 0


class Database:
    """An open gallery.sqlite.

    Args:
        folder: of the gallery.
        patience: seconds to wait for other processes.

    Raises:
        DataError: there is no gallery, it is of another format, or its file is damaged.
        SetupError: it cannot be opened.
    """

    def __init__(self, folder: str, *, patience: float = PATIENCE) -> None:
        self.folder = folder
        path = os.path.join(folder, FILE_NAME)
        if not os.path.isfile(path):
            raise DataError(f"'{folder}' is no index, it has no {FILE_NAME}: build one with mgre index build")
        with self.explained():
            # A file that cannot be written is read all the same.
            mode = "rw" if os.access(path, os.W_OK) else "ro"
            uri = f"file:{quote(os.fsencode(os.path.abspath(path)))}?mode={mode}"
            self._connection = sqlite3.connect(uri, uri=True, timeout=patience, isolation_level=None)
            try:
                for pragma in (
                    "secure_delete = ON",
                    "synchronous = EXTRA",
                    "trusted_schema = OFF",
                    "cell_size_check = ON",
                ):
                    self._connection.execute(f"PRAGMA {pragma}")
                self._check_kind()
            except BaseException:
                self._connection.close()
                raise

    def _check_kind(self) -> None:
        application = self.one("PRAGMA application_id")
        version = self.one("PRAGMA user_version")
        if application != APPLICATION:
            raise DataError(
                f"'{os.path.join(self.folder, FILE_NAME)}' is a file of another program: choose another folder"
            )
        if version != FORMAT:
            raise DataError(
                f"index '{self.folder}' has format {version}, and this version of mgre reads {FORMAT}: use the version "
                "it was made with, or build it again"
            )

    def close(self) -> None:
        self._connection.close()

    def one(self, query: str, values: Sequence[Any] = ()) -> Any:
        """The first value of the first row; None where there is no row."""
        row = self._connection.execute(query, values).fetchone()
        return None if row is None else row[0]

    def rows(self, query: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        return self._connection.execute(query, values)

    def many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        self._connection.executemany(statement, rows)

    def numbers(self, query: str, values: Sequence[Any] = ()) -> np.ndarray:
        """The first column, int64."""
        return np.fromiter((row[0] for row in self._connection.execute(query, values)), dtype=np.int64)

    @contextmanager
    def reading(self) -> Iterator[State]:
        """A view that no other process changes as long as this lasts."""
        with self.explained():
            self._connection.execute("BEGIN")
            try:
                yield self.state()
            finally:
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")

    @contextmanager
    def changing(self) -> Iterator[State]:
        """A change, which is on the disk when this ends without an error, and not there at all otherwise.

        Raises:
            SetupError: another process is changing the gallery, or the disk is full.
        """
        with self.explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.state()
                self.execute("UPDATE state SET changes = changes + 1")
                self._connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    def execute(self, statement: str, values: Sequence[Any] = ()) -> None:
        self._connection.execute(statement, values)

    def state(self) -> State:
        """
        Raises:
            DataError: it is none that this package writes. A path in place of a file's name could let a gallery from
                somebody else cut or overwrite any file.
        """
        names = [field.name for field in fields(State)]
        row = self._connection.execute(f"SELECT {', '.join(names)} FROM state").fetchone()
        values = dict(zip(names, row or (), strict=False))
        numbers = (values.get(name) for name in ("dimension", "next_id", "slots", "compact_at", "changes"))
        if not (
            all(isinstance(number, int) and number >= 0 for number in numbers)
            and values["dimension"] > 0
            and all(isinstance(values[name], str) and kind.fullmatch(values[name]) for name, kind in _NAMES.items())
        ):
            raise DataError(
                f"'{os.path.join(self.folder, FILE_NAME)}' is damaged (its state names no files of an index): bring "
                "the folder back from a backup, or build the index again"
            )
        return State(**values)

    def set(self, **values: Any) -> None:
        """Change the state."""
        self.execute(f"UPDATE state SET {', '.join(f'{name} = ?' for name in values)}", list(values.values()))

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Errors of SQLite and of the file system become those of this package.

        Raises:
            DataError: a file is damaged.
            SetupError: the gallery is in use, or cannot be read or written.
        """
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error) or "busy" in str(error):
                raise SetupError(
                    f"index '{self.folder}' is in use by another process, and nothing was changed: try again when that "
                    "has finished"
                ) from error
            raise SetupError(
                f"index '{self.folder}' cannot be read or written ({error}), and nothing was changed: {_LOOK}"
            ) from error
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"'{os.path.join(self.folder, FILE_NAME)}' is damaged ({error}): bring the folder back from a backup, "
                "or build the index again"
            ) from error
        except OSError as error:
            raise SetupError(
                f"index '{self.folder}' cannot be read or written ({error.strerror or error}), and nothing was "
                f"changed: {_LOOK}"
            ) from error


def make(folder: str, dimension: int, fingerprint: str, record: str, vectors: str) -> None:
    """Make an empty gallery.sqlite in one step.

    Raises:
        SetupError: it cannot be written.
    """
    columns = asdict(State(dimension, fingerprint, record, vectors, secrets.token_bytes(16)))
    try:
        with write_atomically(os.path.join(folder, FILE_NAME)) as path, closing(sqlite3.connect(path)) as connection:
            connection.executescript(_TABLES)
            connection.execute(f"CREATE TABLE state ({', '.join(columns)})")
            connection.execute(f"INSERT INTO state VALUES ({', '.join('?' * len(columns))})", list(columns.values()))
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
            connection.commit()
    except (sqlite3.Error, OSError) as error:
        raise SetupError(
            f"index '{folder}' cannot be made ({error}): look at the free space and the permissions"
        ) from error


def digest(salt: bytes, id: str) -> bytes:
    """What is kept of a removed id."""
    return hashlib.blake2b(id.encode(), key=salt, digest_size=16).digest()
