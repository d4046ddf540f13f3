"""`python -m tests.up_on_forks PYTHON up …`: `tuneloop up …`, whose trainings and looks at files PYTHON runs."""

from __future__ import annotations

import asyncio
import runpy
import sys
from typing import Any

from tests.forking_python import through


def main(python: str) -> None:
    """Never returns otherwise than `python -m server` does."""
    start = asyncio.create_subprocess_exec

    async def start_through(*command: Any, **settings: Any) -> asyncio.subprocess.Process:
        return await start(*through(python, command), **settings)

    asyncio.create_subprocess_exec = start_through  # type: ignore[assignment]
    runpy.run_module("server", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv.pop(1))
