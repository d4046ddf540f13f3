"""Reads records from CSV and Parquet: a column is a key. Cells with lists or objects are JSON text. No torch."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from training.data.formats.json_files import MAX_LINE_BYTES, read_lines
from training.data.formats.json_records import Broken, Record, decode, encoding_fault, has_nul
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
"""Parquet rows in memory at once."""


def read_csv(file: BinaryIO, delimiter: str) -> Iterator[Record]:
    """Yield the rows of a CSV file whose first row names the columns; the position is a row's first line."""
    csv.field_size_limit(MAX_LINE_BYTES)  # of the whole process; an unclosed quote is detected there at the latest
    rows = _read_rows(_Lines(file), delimiter)
    for line, names in rows:  # the first row is the header; without a valid one, no other row can be read
        broken = names if isinstance(names, Broken) else _find_header_fault(names)
        if broken is not None:
            yield "line", broken.place or line, broken
        elif not isinstance(names, Broken):
            yield from _name_rows([name.strip() for name in names], rows)
        return


def read_parquet(path: Path) -> Iterator[Record]:
    """Yield the rows of a Parquet file, counted from 1, a batch at a time. Null fields are left out.

    Source: https://arrow.apache.org/docs/python/parquet.html
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    try:
        with pq.ParquetFile(path) as file:
            if broken := _find_header_fault(list(file.schema_arrow.names)):
                yield "row", None, broken
                return
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                for record in _read_batch(batch):
                    row += 1
                    yield "row", row, record
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        reason = f"it is a damaged Parquet file, after row {row}: {str(error)[:200]}; write it again"
        yield "row", row + 1 if row else None, Broken(reason)


def _name_rows(header: list[str], rows: Iterator[tuple[int, list[str] | Broken]]) -> Iterator[Record]:
    for line, cells in rows:
        if isinstance(cells, Broken):
            yield "line", cells.place or line, cells
        else:
            yield "line", line, _make_record(header, cells)


class _Lines:
    """Lines of a CSV file as text; keeps the first fault, for the row that it belongs to."""

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
            self._fault = Broken(encoding_fault(error, content).reason, encoding=True, place=line)
            text = content.decode("utf-8", "replace")
        return f"{text}\n"

    def take_fault(self) -> Broken | None:
        """Return the fault since the last call."""
        fault, self._fault = self._fault, None
        return fault


def _read_rows(lines: _Lines, delimiter: str) -> Iterator[tuple[int, list[str] | Broken]]:
    """Yield rows that aren't blank, each with its first line; ends at the first that breaks CSV's rules."""
    reader = csv.reader(lines, strict=True, delimiter=delimiter)
    while True:
        first_line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield first_line, lines.take_fault() or Broken(_explain_csv_error(str(error)))
            return
        if fault := lines.take_fault():
            yield first_line, fault
        elif any(cell.strip() for cell in cells):
            yield first_line, cells


def _explain_csv_error(message: str) -> str:
    if "unexpected end" in message or "field limit" in message:
        return "it isn't CSV: a quote in this row is never closed; double each quote inside a quoted cell"
    return f"it isn't CSV: {message}; double each quote inside a quoted cell. Rows after it weren't read"


def _find_header_fault(names: list[str]) -> Broken | None:
    header = [name.strip() for name in names]
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        return Broken(f"the header has the column `{twice[0][:40]}` twice; column names must be unique")
    if detect(dict.fromkeys(header, "?")) is None:
        wanted = "`instruction` and `output`, `prompt` and `completion`, `messages`, `conversations` or `text`"
        shown = ", ".join(f"`{name[:40]}`" for name in header[:8])
        return Broken(f"no format has these columns: {shown}; the first row must name columns such as {wanted}")
    return None


def _make_record(header: list[str], cells: list[str]) -> dict[str, Any] | Broken:
    if len(cells) != len(header):
        reason = f"the row has {len(cells)} cells, but the header has {len(header)} columns"
        return Broken(f"{reason}; put cells that contain a comma in double quotes")
    record: dict[str, Any] = dict(zip(header, cells, strict=True))
    for key in ("label", "kto_tag"):
        if key in record:
            record[key] = _LABELS.get(record[key].strip().lower(), record[key])
    return _decode_json(record)


def _decode_json(record: dict[str, Any]) -> dict[str, Any] | Broken:
    """Return `record` with the JSON texts of its lists and objects decoded; empty ones are left out."""
    for column, cell in list(record.items()):
        if not isinstance(cell, str):
            continue
        if "\0" in cell:
            return Broken(f"the column `{column[:40]}` contains the NUL character; remove it")
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
    """Return whether the column is JSON: `input` is text in Alpaca, an object in OpenAI's pairs; `chosen` similarly."""
    if column == "input":
        return "preferred_output" in record
    return column in _JSON_COLUMNS or (column in ("chosen", "rejected") and "conversations" in record)


def _read_batch(batch: Any) -> Iterator[Any]:
    """Yield the rows of one batch; row by row if it can't be read as a whole."""
    rows: list[Any]
    try:
        batch.validate(full=True)  # a damaged file may point outside its own bytes
        rows = batch.to_pylist()
    except ValueError:
        rows = [_read_row(batch.slice(place, 1)) for place in range(batch.num_rows)]
    for row in rows:
        yield row if isinstance(row, Broken) else _clean_record(_remove_nulls(row))


def _clean_record(row: dict[str, Any]) -> dict[str, Any] | Broken:
    return Broken("it contains the NUL character; remove it") if has_nul(row) else _decode_json(row)


def _read_row(batch: Any) -> Any:
    try:
        batch.validate(full=True)
        return batch.to_pylist()[0]
    except ValueError as error:
        return Broken(f"the row can't be read: {str(error)[:120]}; write text as UTF-8")


def _remove_nulls(value: Any) -> Any:
    """Return `value` without null fields: Parquet gives each object the fields of all objects in its column."""
    if isinstance(value, dict):
        return {key: _remove_nulls(item) for key, item in value.items() if item is not None}
    return [_remove_nulls(item) for item in value] if isinstance(value, list) else value
