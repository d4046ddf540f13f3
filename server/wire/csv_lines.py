"""CSV lines whose cells no spreadsheet runs as formulas."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any


def csv_line(cells: Iterable[Any]) -> str:
    """Return the cells as one line of a CSV file."""
    buffer = io.StringIO()
    csv.writer(buffer).writerow([_escape_formula(cell) for cell in cells])
    return buffer.getvalue()


def _escape_formula(value: Any) -> Any:
    # A spreadsheet runs a cell that starts like a formula, and these texts come from models and unknown users.
    return "'" + value if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
