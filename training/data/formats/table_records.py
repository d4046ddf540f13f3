"""CSV and Parquet in, records out: a column is a key. Cells that hold lists or objects are JSON text. No torch."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from training.data.formats.json_files import MAX_LINE_BYTES, read_lines
from training.data.formats.json_records import Broken, Record, decode, has_nul, not_utf8
from training.data.formats.record_formats import detect

_JSON_COLUMNS = (
    "messages",
    "conversations",
    "tools",
    "functions",
    "history",
    "preferred_output",
    "non_preferred_output",
)
_LABELS = {"true": True, "1": True, "false": False, "0": False}
_BATCH_ROWS = 256
"""Parquet rows that are held at once."""


def read_csv(file: BinaryIO, delimiter: str) -> Iterator[Record]:
    """The rows of a CSV file whose first row names the columns; the place is the line on which a row begins."""
    csv.field_size_limit(MAX_LINE_BYTES)  # of the whole process; an unclosed quote is noticed there at the latest
    rows = _rows(_Lines(file), delimiter)
    for line, names in rows:  # the first row is the header; without a good one, no other row can be read
        broken = names if isinstance(names, Broken) else _header_fault(names)
        if broken is not None:
            yield "line", broken.place or line, broken
        elif not isinstance(names, Broken):
            yield from _named_rows([name.strip() for name in names], rows)
        return


def read_parquet(path: Path) -> Iterator[Record]:
    """The rows of a Parquet file, counted from 1, a batch at a time. Fields that are null are left out.

    Source: https://arrow.apache.org/docs/python/parquet.html
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    try:
        with pq.ParquetFile(path) as file:
            if broken := _header_fault(list(file.schema_arrow.names)):
                yield "row", None, broken
                return
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                for record in _batch_records(batch):
                    row += 1
                    yield "row", row, record
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        told = f"it is a damaged Parquet file, after row {row}: {str(error)[:200]}; write it anew"
        yield "row", row + 1 if row else None, Broken(told)


def _named_rows(header: list[str], rows: Iterator[tuple[int, list[str] | Broken]]) -> Iterator[Record]:
    for line, cells in rows:
        if isinstance(cells, Broken):
            yield "line", cells.place or line, cells
        else:
            yield "line", line, _row(header, cells)


class _Lines:
    """Lines of a CSV file as text; remembers the first fault of one, for the row that it belongs to."""

    def __init__(self, file: BinaryIO) -> None:
        self._lines = read_lines(file)
        self._fault: Broken | None = None

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line, content = next(self._lines)
        if isinstance(content, Broken):
            self._fault = Broken(content.reason, place=line)
            return "\n"
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            self._fault = Broken(not_utf8(error, content).reason, encoding=True, place=line)
            text = content.decode("utf-8", "replace")
        return f"{text}\n"

    def taken_fault(self) -> Broken | None:
        """The fault since the last call."""
        fault, self._fault = self._fault, None
        return fault


def _rows(lines: _Lines, delimiter: str) -> Iterator[tuple[int, list[str] | Broken]]:
    """Rows that aren't blank, each with the line that it begins on; ends at the first that breaks CSV's rules."""
    reader = csv.reader(lines, strict=True, delimiter=delimiter)
    while True:
        begins = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield begins, lines.taken_fault() or Broken(_csv_reason(str(error)))
            return
        if fault := lines.taken_fault():
            yield begins, fault
        elif any(cell.strip() for cell in cells):
            yield begins, cells


def _csv_reason(told: str) -> str:
    if "unexpected end" in told or "field limit" in told:
        return "it isn't CSV: a quote that opens in this row is never closed; double each quote inside a quoted cell"
    return f"it isn't CSV: {told}; double each quote inside a quoted cell. Rows after it weren't read"


def _header_fault(names: list[str]) -> Broken | None:
    header = [name.strip() for name in names]
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        return Broken(f"the header names the column `{twice[0][:40]}` twice; give each column a name of its own")
    if detect(dict.fromkeys(header, "?")) is None:
        wanted = "`instruction` and `output`, `prompt` and `completion`, `messages`, `conversations` or `text`"
        shown = ", ".join(f"`{name[:40]}`" for name in header[:8])
        return Broken(f"no format has these columns: {shown}; the first row must name columns such as {wanted}")
    return None


def _row(header: list[str], cells: list[str]) -> dict[str, Any] | Broken:
    if len(cells) != len(header):
        reason = f"the row has {len(cells)} cells, but the header names {len(header)} columns"
        return Broken(f"{reason}; put a cell that holds a comma into double quotes")
    record: dict[str, Any] = dict(zip(header, cells, strict=True))
    for key in ("label", "kto_tag"):
        if key in record:
            record[key] = _LABELS.get(record[key].strip().lower(), record[key])
    return _decoded(record)


def _decoded(record: dict[str, Any]) -> dict[str, Any] | Broken:
    """`record` with the JSON texts of its lists and objects decoded; empty ones are left out."""
    for column, cell in list(record.items()):
        if not isinstance(cell, str):
            continue
        if "\0" in cell:
            return Broken(f"the column `{column[:40]}` holds the NUL character, which no text has; take it out")
        if not _is_json_column(column, record):
            continue
        if not cell.strip():
            del record[column]
            continue
        value = decode(cell.encode("utf-8"))
        if isinstance(value, Broken):
            return Broken(f"the column `{column}` must be JSON: {value.reason}")
        record[column] = value
    return record


def _is_json_column(column: str, record: Mapping[str, Any]) -> bool:
    """`input` is a text in Alpaca and an object in OpenAI's pairs; `chosen` likewise a text or ShareGPT's object."""
    if column == "input":
        return "preferred_output" in record
    return column in _JSON_COLUMNS or (column in ("chosen", "rejected") and "conversations" in record)


def _batch_records(batch: Any) -> Iterator[Any]:
    """The rows of one batch; where it can't be read as a whole, row by row."""
    rows: list[Any]
    try:
        batch.validate(full=True)  # a damaged file may point outside its own bytes
        rows = batch.to_pylist()
    except ValueError:
        rows = [_one_row(batch.slice(place, 1)) for place in range(batch.num_rows)]
    for row in rows:
        yield row if isinstance(row, Broken) else _record(_without_nulls(row))


def _record(row: dict[str, Any]) -> dict[str, Any] | Broken:
    return Broken("it holds the NUL character, which no text has; take it out") if has_nul(row) else _decoded(row)


def _one_row(batch: Any) -> Any:
    try:
        batch.validate(full=True)
        return batch.to_pylist()[0]
    except ValueError as error:
        return Broken(f"the row can't be read: {str(error)[:120]}; write texts as UTF-8")


def _without_nulls(value: Any) -> Any:
    """`value` without null fields: Parquet gives each object the fields of all objects in its column."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
