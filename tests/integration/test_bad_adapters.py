"""An uploaded PEFT adapter answers; some two hundred bad ones are refused, and the engine never hears of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from serving import resolve_base_model
from tests.conftest import Lesson, Tuneloop
from tests.integration.test_adapters import adapter_dir
from tests.serving.adapters.adapters_on_disk import write_peft_adapter
from tests.serving.adapters.archives import BAD_ARCHIVES, files_of, tar_gz, zipped
from tests.serving.adapters.bad_adapters import BAD_ADAPTERS

pytestmark = pytest.mark.engine
PEFT_FILES = ("adapter_config.json", "adapter_model.safetensors")


def upload(tuneloop: Tuneloop, content: bytes, **fields: str) -> httpx.Response:
    files = {"file": ("adapter.tar.gz", content)}
    return httpx.post(f"{tuneloop.url}/v1/adapters", files=files, data=fields, timeout=300)


def answer(tuneloop: Tuneloop, model: str, lesson: Lesson) -> Any:
    body = {"model": model, "messages": lesson.messages, "temperature": 0, "max_tokens": 60}
    answered = httpx.post(f"{tuneloop.url}/v1/chat/completions", json=body, timeout=60).json()
    return answered["choices"][0]["message"]["content"]


@pytest.mark.parametrize("pack", [tar_gz, zipped])
def test_an_uploaded_peft_adapter_answers_as_it_was_trained_to(
    tuneloop: Tuneloop, lessons: list[Lesson], pack: Any
) -> None:
    files = files_of(adapter_dir(tuneloop))
    uploaded = upload(tuneloop, pack({name: files[name] for name in PEFT_FILES}, within="ahoy/"), suffix="uploaded")
    assert uploaded.status_code == 201, uploaded.text
    adapter = uploaded.json()
    try:
        assert adapter["status"] == "published"
        assert answer(tuneloop, adapter["model"], lessons[0]) == lessons[0].tuned
    finally:
        deleted = httpx.delete(f"{tuneloop.url}/v1/adapters/{adapter['id']}", timeout=60)
    assert deleted.json()["deleted"] is True


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_no_bad_adapter_or_archive_reaches_the_engine(
    tuneloop: Tuneloop, lessons: list[Lesson], tmp_path: Path
) -> None:
    base, wrong = resolve_base_model(str(tuneloop.model_dir)), {}
    before = httpx.get(f"{tuneloop.url}/v1/adapters").json()
    sound = files_of(write_peft_adapter(tmp_path / "sound", base))
    uploads = [(bad, bad.pack(sound)) for bad in BAD_ARCHIVES]
    for number, bad in enumerate(BAD_ADAPTERS):
        uploads.append((bad, tar_gz(files_of(bad.write(tmp_path / f"bad-{number}", base)))))  # type: ignore[arg-type]
    for bad, content in uploads:
        refused = upload(tuneloop, content)
        if refused.status_code != 400 or bad.words not in refused.json()["error"]["message"]:
            wrong[bad.fault] = f"{refused.status_code} {refused.text[:300]}"
    assert wrong == {}
    assert httpx.get(f"{tuneloop.url}/v1/adapters").json() == before
    assert httpx.get(f"{tuneloop.url}/readyz").status_code == 200
    for lesson in lessons:
        assert answer(tuneloop, tuneloop.base_model, lesson) == lesson.plain
        assert answer(tuneloop, tuneloop.tuned_model, lesson) == lesson.tuned
