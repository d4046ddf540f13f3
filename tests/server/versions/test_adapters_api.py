"""`/v1/adapters` over HTTP: what comes in is served, what is refused is told and leaves nothing, and nothing breaks."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from server.access.keys import create_key
from server.cli.main import app as command_line
from serving import AdapterError, AdapterMisfitError, BaseModel, EngineUnavailableError, ParityError
from tests.server.conftest import Gateway, StartGateway
from tests.serving.adapters.adapters_on_disk import write_adapter, write_base, write_peft_adapter
from tests.serving.adapters.archives import BAD_ARCHIVES, files_of, tar_gz, zipped
from tests.serving.adapters.bad_adapters import BAD_ADAPTERS, with_tokenizer

CHAT = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def base(tmp_path: Path) -> BaseModel:
    """The gateway's base, with weights."""
    return with_tokenizer(write_base(tmp_path / "base"))


@pytest.fixture
def gateway(base: BaseModel, start_gateway: StartGateway) -> Gateway:
    """A gateway over that base."""
    return start_gateway()


@pytest.fixture
def archive(base: BaseModel, tmp_path: Path) -> bytes:
    """A sound adapter, packed."""
    return tar_gz(files_of(write_peft_adapter(tmp_path / "peft", base)), within="my-adapter/")


def post(gateway: Gateway, content: bytes, *, headers: dict[str, str] | None = None, **fields: str) -> httpx.Response:
    files = {"file": ("adapter.tar.gz", content)}
    return gateway.http.post("/v1/adapters", files=files, data=fields, headers=headers)


def is_empty(gateway: Gateway) -> bool:
    """Whether no adapter is there, and nothing of what came in is left."""
    settings = gateway.services.settings
    left = [*settings.adapters_dir.glob("[!.]*"), *settings.adapters_dir.glob(".partial*")]
    return left == [] and list(settings.data_dir.glob("incoming-adapters/*")) == []


@pytest.mark.parametrize("pack", [tar_gz, zipped])
def test_an_uploaded_adapter_is_listed_shown_served_and_deleted(
    gateway: Gateway, base: BaseModel, tmp_path: Path, pack: Any
) -> None:
    answer = post(gateway, pack(files_of(write_peft_adapter(tmp_path / "peft", base))), name="support-bot")
    assert answer.status_code == 201
    adapter = answer.json()
    assert (adapter["object"], adapter["model"], adapter["base_model"]) == ("adapter", "support-bot", "base")
    assert (adapter["r"], adapter["status"]) == (2, "published")
    assert gateway.http.get("/v1/adapters").json()["data"] == [adapter]
    assert gateway.http.get(f"/v1/adapters/{adapter['id']}").json() == adapter
    assert gateway.http.get("/v1/models/support-bot").json()["parent"] == "base"
    chat = gateway.http.post("/v1/chat/completions", json=CHAT | {"model": "support-bot"})
    assert (chat.status_code, gateway.engine.requests[-1]["model"]) == (200, "support-bot")
    assert gateway.http.delete(f"/v1/adapters/{adapter['id']}").json()["deleted"] is True
    for gone in (f"/v1/adapters/{adapter['id']}", "/v1/models/support-bot"):
        assert gateway.http.get(gone).status_code == 404


def test_without_a_name_it_is_named_by_its_suffix(gateway: Gateway, archive: bytes) -> None:
    assert post(gateway, archive, suffix="capitals").json()["model"].startswith("ft:base:personal:capitals:")
    assert post(gateway, archive, name="", suffix="").json()["model"].startswith("ft:base:personal:imported:")


def test_the_name_of_an_adapter_that_was_deleted_stays_taken(gateway: Gateway, archive: bytes) -> None:
    first = post(gateway, archive, name="support-bot").json()
    for _ in range(2):
        again = post(gateway, archive, name="support-bot")
        assert (again.status_code, gateway.error(again)["code"]) == (409, "name_taken")
        assert again.headers["x-should-retry"] == "false"
        gateway.http.delete(f"/v1/adapters/{first['id']}")


def test_of_many_who_upload_under_one_name_at_once_one_wins(gateway: Gateway, archive: bytes) -> None:
    together = threading.Barrier(6)

    def upload(_: int) -> int:
        together.wait()
        return post(gateway, archive, name="support-bot").status_code

    with ThreadPoolExecutor(6) as threads:
        assert sorted(threads.map(upload, range(6))) == [201, *[409] * 5]
    assert len(gateway.http.get("/v1/adapters").json()["data"]) == 1


PATH_TRICKS = ("../x", "..", "a/../b", "/etc/passwd", "a\\b", "a\0b", "a b", "x" * 201, "适配器")
BAD_FIELDS: list[tuple[dict[str, str], int, str]] = [
    *(({"name": name}, 400, "invalid_value") for name in (*PATH_TRICKS, "ft:a:b:c:d", "x:ckpt-step-1")),
    ({"name": "base"}, 409, "name_taken"),
    ({"suffix": "../x"}, 400, "invalid_value"),
    ({"suffix": "x" * 65}, 400, "invalid_value"),
    ({"same_base": "maybe"}, 400, "invalid_value"),
    ({"base_model": "other"}, 400, "model_not_found"),
    ({"nmae": "x"}, 400, "unknown_parameter"),
]


def test_a_field_that_cannot_be_meant_is_refused(gateway: Gateway, archive: bytes) -> None:
    for fields, status, code in BAD_FIELDS:
        answer = post(gateway, archive, **fields)
        error = gateway.error(answer)
        assert (fields, answer.status_code, error["code"], [error["param"]]) == (fields, status, code, [*fields])
    assert is_empty(gateway)


def test_a_request_that_is_no_such_form_is_refused(gateway: Gateway, archive: bytes) -> None:
    no_file = gateway.http.post("/v1/adapters", files={"name": (None, b"x")})
    assert (no_file.status_code, gateway.error(no_file)["param"]) == (400, "file")
    for body in ({"json": {"file": "x"}}, {"content": archive}):
        assert gateway.http.post("/v1/adapters", **body).status_code == 400  # type: ignore[arg-type]
    assert is_empty(gateway)


def test_every_bad_adapter_is_refused_by_its_fault(gateway: Gateway, tmp_path: Path) -> None:
    """The door holds: over a hundred faults, each a 4xx that names it, and not one 5xx."""
    wrong: dict[str, str] = {}
    for number, bad in enumerate(BAD_ADAPTERS):
        made = bad.write(tmp_path / f"bad-{number}", gateway.engine.base)
        answer = post(gateway, (tar_gz, zipped)[number % 2](files_of(made)))
        if answer.status_code != 400 or bad.words not in gateway.error(answer)["message"]:
            wrong[bad.fault] = f"{answer.status_code} {answer.text[:300]}"
    assert wrong == {}
    assert is_empty(gateway)
    assert gateway.http.get("/v1/adapters").json()["data"] == []


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_every_bad_archive_is_refused_by_its_fault(gateway: Gateway, base: BaseModel, tmp_path: Path) -> None:
    files, wrong = files_of(write_peft_adapter(tmp_path / "peft", base)), {}
    before = {path for path in tmp_path.rglob("*") if "incoming-adapters" not in path.parts}
    for bad in BAD_ARCHIVES:
        answer = post(gateway, bad.pack(files))
        error = gateway.error(answer)
        if (answer.status_code, error["code"]) != (400, "invalid_archive") or bad.words not in error["message"]:
            wrong[bad.fault] = f"{answer.status_code} {answer.text[:300]}"
    assert wrong == {}
    assert is_empty(gateway)
    assert {path for path in tmp_path.rglob("*") if "incoming-adapters" not in path.parts} == before


def test_an_archive_without_an_adapter_is_refused(gateway: Gateway) -> None:
    answer = post(gateway, zipped({"README.md": b"hello"}))
    assert answer.status_code == 400
    assert "has no adapter_config.json" in gateway.error(answer)["message"]


def test_an_adapter_of_another_base_comes_in_only_on_our_word(
    gateway: Gateway, base: BaseModel, tmp_path: Path
) -> None:
    content = tar_gz(files_of(write_peft_adapter(tmp_path / "peft", base, base_model_name_or_path="org/other")))
    refused = post(gateway, content)
    assert (refused.status_code, gateway.error(refused)["param"]) == (400, "file")
    assert "same_base=true" in gateway.error(refused)["message"]
    assert post(gateway, content, same_base="true").status_code == 201


def test_a_file_over_the_cap_is_refused(base: BaseModel, start_gateway: StartGateway) -> None:
    gateway = start_gateway(max_file_bytes=2048)
    answer = post(gateway, bytes(4096))
    assert (answer.status_code, gateway.error(answer)["code"]) == (413, "file_too_large")
    assert is_empty(gateway)


def test_an_archive_may_be_larger_than_a_json_body(
    base: BaseModel, start_gateway: StartGateway, archive: bytes
) -> None:
    gateway = start_gateway(max_body_bytes=1024, max_file_bytes=len(archive) + 2048)
    assert len(archive) > 1024
    assert post(gateway, archive, name="large").status_code == 201
    assert post(gateway, archive + bytes(4096), name="larger").status_code == 413


def test_an_upload_that_is_cut_leaves_nothing(gateway: Gateway, archive: bytes) -> None:
    def half() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + archive[: len(archive) // 2]
        raise OSError("the cable is pulled")

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    with pytest.raises(OSError, match="cable"):
        gateway.http.post("/v1/adapters", content=half(), headers=headers)
    for _ in range(100):
        if is_empty(gateway):
            return
        time.sleep(0.05)
    raise AssertionError("what was received is still there")


def test_what_a_killed_server_had_unpacked_goes_at_the_next_start(start_gateway: StartGateway, tmp_path: Path) -> None:
    left = tmp_path / "data" / "incoming-adapters" / "tmp1" / "adapter"
    left.mkdir(parents=True)
    (left / "adapter_model.safetensors").write_bytes(b"x")
    start_gateway()
    assert not left.exists()


@contextmanager
def publishing(gateway: Gateway, error: Exception) -> Iterator[None]:
    """While it is open, trying an adapter on the engine ends so."""

    async def publish(_: str) -> None:
        raise error

    registry: Any = gateway.services.registry
    registry.publish = publish
    try:
        yield
    finally:
        del registry.publish


@pytest.mark.parametrize(
    ("error", "code"),
    [(ParityError("It answers otherwise."), "parity_failed"), (AdapterError("It won't."), "adapter_not_servable")],
)
def test_an_adapter_that_fails_on_the_engine_is_refused_and_gone(
    gateway: Gateway, archive: bytes, error: AdapterError, code: str
) -> None:
    with publishing(gateway, error):
        answer = post(gateway, archive)
    assert (answer.status_code, gateway.error(answer)["code"]) == (400, code)
    assert gateway.error(answer)["message"] == str(error)
    assert is_empty(gateway)


@pytest.mark.parametrize(
    "error", [AdapterMisfitError("Its rank is 512."), EngineUnavailableError("It starts.", retry_after_s=5)]
)
def test_an_adapter_that_the_engine_cannot_take_now_comes_in(
    gateway: Gateway, archive: bytes, error: Exception
) -> None:
    with publishing(gateway, error):
        answer = post(gateway, archive)
    assert answer.status_code == 201
    assert gateway.http.get(f"/v1/adapters/{answer.json()['id']}").status_code == 200


def test_a_rank_above_the_engines_comes_in_and_is_a_conflict_until_a_restart(
    gateway: Gateway, base: BaseModel, tmp_path: Path
) -> None:
    content = tar_gz(files_of(write_peft_adapter(tmp_path / "peft", base, r=512)))
    adapter = post(gateway, content, name="large").json()
    assert adapter["r"] == 512
    chat = gateway.http.post("/v1/chat/completions", json=CHAT | {"model": "large"})
    assert (chat.status_code, gateway.error(chat)["code"]) == (409, "engine_restart_required")


def test_keys_upload_alike_and_see_each_others_adapters_but_not_what_is_broken(
    gateway: Gateway, base: BaseModel, archive: bytes
) -> None:
    """An adapter is of no project: only checkpoints are, and nobody uploads one of those."""
    with gateway.database.session() as session:
        keys = {project: create_key(session, project, project=project)[1] for project in ("ours", "theirs")}
    gateway.know_keys()
    assert post(gateway, archive).status_code == 401
    ours, theirs = ({"Authorization": f"Bearer {keys[project]}"} for project in ("ours", "theirs"))
    broken = write_adapter(gateway.services.settings.adapters_dir, base, manifest={"manifest_version": 9})
    adapter = post(gateway, archive, headers=theirs).json()
    assert gateway.http.get("/v1/adapters", headers=ours).json()["broken"].keys() == {broken.name}
    listed = gateway.http.get("/v1/adapters", headers=theirs).json()
    assert (listed["data"], listed["broken"]) == ([adapter], {})


def adding(*arguments: str) -> str:
    """What `tuneloop adapters add` says: what it did, or why it doesn't."""
    done = CliRunner().invoke(command_line, ["adapters", "add", *arguments])
    assert (done.exception is None) == (done.exit_code == 0)
    return done.output if done.exception is None else f"{type(done.exception).__name__}: {done.exception}"


def test_the_command_line_adds_folders_and_archives_by_the_same_rules(base: BaseModel, tmp_path: Path) -> None:
    where = ("--model", str(base.path), "--data-dir", str(tmp_path / "cli"))
    folder = write_peft_adapter(tmp_path / "peft", base, base_model_name_or_path="org/other")
    archive = tmp_path / "adapter.zip"
    archive.write_bytes(zipped(files_of(folder)))
    for source, name in ((folder, "from-folder"), (archive, "from-archive")):
        assert "--same-base" in adding(str(source), *where)
        assert name in adding(str(source), "--same-base", "--name", name, *where)
        assert "NameTakenError" in adding(str(source), "--same-base", "--name", name, *where)
    archive.write_bytes(tar_gz({"../README.md": b"x"}))
    assert "isn't a plain relative path" in adding(str(archive), *where)
    assert "looks like a path" in adding(str(folder), "--name", "a/../b", *where)
    manifests = (tmp_path / "cli" / "adapters").glob("adapter-*/manifest.json")
    assert {json.loads(path.read_text())["name"] for path in manifests} == {"from-folder", "from-archive"}
