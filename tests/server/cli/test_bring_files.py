"""docs/examples/bring_files.py, from one server to another; here both are the same one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from openai import OpenAI

from tests.server.conftest import Gateway

SCRIPT = Path(__file__).parents[3] / "docs" / "examples" / "bring_files.py"


def test_fine_tuning_files_come_over_with_name_and_content(gateway: Gateway) -> None:
    client = OpenAI(base_url=f"{gateway.url}/v1", api_key="unused")
    contents = {f"{word}.jsonl": f'{{"text": "{word}"}}\n'.encode() for word in ("eins", "zwei", "три")}
    there = [client.files.create(file=item, purpose="fine-tune").id for item in contents.items()]
    client.files.create(file=("other.txt", b"x"), purpose="user_data")
    environment = os.environ | {"OPENAI_API_KEY": "unused", "OPENAI_BASE_URL": f"{gateway.url}/v1"}
    command = [sys.executable, str(SCRIPT), f"{gateway.url}/v1"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    moved = [line.split() for line in done.stdout.splitlines()]
    assert [(old, name) for old, _, name in moved] == list(zip(there, contents, strict=True))
    assert {name: client.files.content(new).read() for _, new, name in moved} == contents
