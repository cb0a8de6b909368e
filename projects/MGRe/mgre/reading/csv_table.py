"""Tables as CSV, in the dialects that spreadsheets and pandas write.

The columns may be separated by commas, semicolons, tabs or vertical bars, the file may be UTF-8 or, with a byte-order
mark, UTF-16, and names of columns may be written in capital letters.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mgre.errors import DataError, printable
from mgre.reading.text_files import read_text

# The first of them is the standard. Spreadsheets write the second one where the comma is the decimal mark.
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        line: its number in the file, from 1.
        where: file and line, for messages.
        cells: by the name of the column, in small letters, without space around them. A cell that is missing at the
            end of the line is empty.
    """

    line: int
    where: str
    cells: dict[str, str]


def read_table(path: str, columns: Sequence[str], *, with_others: bool = False) -> Iterator[Row]:
    """The rows of a table, without those whose cells are all empty.

    Args:
        path: of the file.
        columns: that the table has to have.
        with_others: give the cells of all other columns that have a name too.

    Raises:
        DataError: the file cannot be read, a column is missing or there twice, or a line has more cells than the
            header; the message names the line.
    """
    text = read_text(path)
    first_line = text.lstrip().partition("\n")[0].strip()
    first_is_directive = first_line.lower().startswith("sep=")  # Excel's own first line
    separator = _separator(text, columns, first_is_directive)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    header = None
    try:
        for cells in reader:
            where = f"'{path}' line {reader.line_num}"
            if not any(cell.strip() for cell in cells) or (first_is_directive and reader.line_num == 1):
                continue
            if header is None:
                header = _parse_header(cells, columns, where, with_others=with_others)
                num_cells = len(cells)
                continue
            if len(cells) > num_cells and any(cell.strip() for cell in cells[num_cells:]):
                raise DataError(
                    f"{where}: {len(cells)} cells, the header has {num_cells}; put a cell with "
                    f"{_SEPARATORS[separator]} in it into double quotes"
                )
            values = {name: cells[i].strip() if i < len(cells) else "" for name, i in header.items()}
            yield Row(reader.line_num, where, values)
        if header is None:
            _parse_header([], columns, f"'{path}' line 1", with_others=with_others)
    except csv.Error as error:
        raise DataError(f"'{path}' line {reader.line_num} cannot be read as CSV: {error}; write it again") from error


def _separator(text: str, columns: Sequence[str], first_is_directive: bool) -> str:
    """The separator that gives the first line all columns; a comma where none does."""
    lines = text.lstrip().splitlines()[int(first_is_directive) :]
    header = next((line for line in lines if line.strip()), "")
    for separator in _SEPARATORS:
        names = {cell.strip().strip('"').lower() for cell in header.split(separator)}
        if names.issuperset(columns):
            return separator
    return ","


def _parse_header(cells: Sequence[str], columns: Sequence[str], where: str, *, with_others: bool) -> dict[str, int]:
    """The position of each column.

    Raises:
        DataError: a column is missing, or there are two of its name.
    """
    names = [cell.strip().lower() for cell in cells]
    missing = [column for column in columns if column not in names]
    if missing:
        found = f" (it is '{printable(', '.join(cells))[:80]}')" if cells else ""
        raise DataError(
            f"{where}: no column {', '.join(missing)}; the header must name {', '.join(columns)}, "
            f"separated by {', '.join(_SEPARATORS.values())}{found}"
        )
    taken = list(dict.fromkeys(name for name in names if name)) if with_others else columns
    double = [column for column in taken if names.count(column) > 1]
    if double:
        raise DataError(f"{where}: two columns named {printable(double[0])}; rename one of them")
    return {column: names.index(column) for column in taken}
