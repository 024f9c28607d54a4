"""Files of rows that people hand in, as CSV or JSON lines: rows with their numbers, and the file of those that failed.

A row keeps its text as it was read, so that what failed can be mended and handed in again. What a row means is the command's.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

DELIMITERS = ",;\t"
ERROR_COLUMNS = ("error_row", "error_outcome", "error_reason")  # before the row's own in an error file; not read back
PROBLEM_NOT_TEXT = "is not UTF-8 text"


@dataclass(frozen=True, slots=True)
class Row:
    """One row. ``values``: by column, as text (CSV); empty of JSON lines. ``problem``: why it cannot be read."""

    number: int
    text: str
    values: dict[str, str]
    problem: str = ""


def is_csv(path: Path, named: str) -> bool:
    """Whether a file is CSV: by ``--format``, else by its name. ValueError for another format."""
    if named not in ("", "csv", "jsonl"):
        raise ValueError(f"--format {named!r}: csv or jsonl")
    return named == "csv" or (not named and path.suffix.lower() in (".csv", ".tsv"))


class CsvRows:
    """A CSV file with a header. Its delimiter is the header's: comma, semicolon or tab. Raises ValueError for no header."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        texts = (raw.decode("utf-8", "surrogateescape") for raw in lines)
        header = next(texts, "").removeprefix("\ufeff")
        self.delimiter = max(DELIMITERS, key=header.count)
        self._reader = csv.reader([header], delimiter=self.delimiter)
        self.columns = [name.strip().lower() for name in next(self._reader, [])]
        if not any(self.columns):
            raise ValueError("the first line must name the columns")
        doubled = sorted({name for name in self.columns if name and self.columns.count(name) > 1})
        if doubled:
            raise ValueError(f"column {doubled[0]!r} is named twice")
        self._reader = csv.reader(texts, delimiter=self.delimiter)

    def __iter__(self) -> Iterator[Row]:
        while True:
            first = self._reader.line_num + 2  # the header was another reader's
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Row(first, "", {}, f"is no CSV: {error}")
                continue
            if any(cell.strip() for cell in cells):
                yield self._row(first, cells)

    def _row(self, number: int, cells: list[str]) -> Row:
        text = self.written(cells)
        if any("\udc80" <= character <= "\udcff" for character in text):
            return Row(number, text.encode("utf-8", "replace").decode(), {}, PROBLEM_NOT_TEXT)
        if len(cells) > len(self.columns) and any(cell.strip() for cell in cells[len(self.columns) :]):
            return Row(number, text, {}, f"has {len(cells)} cells, the header {len(self.columns)}")
        values = {name: cell.strip() for name, cell in zip(self.columns, cells, strict=False) if name and cell.strip()}
        return Row(number, text, values)

    def written(self, cells: Sequence[Any]) -> str:
        """Cells as one row of this file, without its end."""
        text = io.StringIO()
        csv.writer(text, delimiter=self.delimiter, lineterminator="").writerow(cells)
        return text.getvalue()


def json_rows(lines: Iterable[bytes]) -> Iterator[Row]:
    """Every line that is not blank."""
    for number, raw in enumerate(lines, 1):
        if not raw.strip():
            continue
        text = raw.decode("utf-8", "replace").rstrip("\r\n")
        try:
            raw.decode("utf-8")
        except ValueError:
            yield Row(number, text, {}, PROBLEM_NOT_TEXT)
        else:
            yield Row(number, text, {})


class ErrorFile:
    """Rows that failed, each with why, in the format they came in. It exists from the start, so that a bad path is told then."""

    def __init__(self, path: Path, rows: CsvRows | None) -> None:
        self._rows = rows
        self._file: IO[str] = path.open("w", encoding="utf-8", newline="")
        if rows is not None:
            columns = [name for name in rows.columns if name not in ERROR_COLUMNS]
            self._kept = [index for index, name in enumerate(rows.columns) if name not in ERROR_COLUMNS]
            self._file.write(rows.written([*ERROR_COLUMNS, *columns]) + "\n")

    def add(self, number: int, text: str, outcome: str, reason: str) -> None:
        """One row that failed."""
        rows = self._rows
        if rows is None:
            said = {"line": number, "outcome": outcome, "reason": reason, "event": text}
            self._file.write(json.dumps(said, ensure_ascii=False) + "\n")
            return
        cells = next(csv.reader([text], delimiter=rows.delimiter), [])
        kept = [cells[index] if index < len(cells) else "" for index in self._kept]
        self._file.write(rows.written([number, outcome, reason, *kept]) + "\n")

    def close(self) -> None:
        """All of it is on the way to the disk."""
        self._file.close()
