"""Copies your fine-tuning files from an OpenAI account to tuneloop and prints the old and the new id of each.

OPENAI_API_KEY=sk-… python docs/examples/bring_files.py http://127.0.0.1:8000/v1
"""

from __future__ import annotations

import os
import sys

from openai import OpenAI


def main(address: str) -> None:
    """One line for each file: old id, new id, name."""
    there = OpenAI()  # reads OPENAI_API_KEY, and OPENAI_BASE_URL if it's set
    here = OpenAI(base_url=address, api_key=os.environ.get("TUNELOOP_API_KEY", "unused"))
    for file in there.files.list(purpose="fine-tune", order="asc"):
        content = there.files.content(file.id).read()
        copy = here.files.create(file=(file.filename, content), purpose="fine-tune")
        print(file.id, copy.id, file.filename, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
