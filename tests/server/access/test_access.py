"""Closed by default: keys, host names, public addresses."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from server.access.keys import create_key, revoke_key
from tests.conftest import run_cli
from tests.server.conftest import Gateway

MODELS = "/v1/models"


def make_key(gateway: Gateway) -> tuple[str, dict[str, str]]:
    with gateway.database.session() as session:
        key, secret = create_key(session, "test")
    return key.id, {"Authorization": f"Bearer {secret}"}


def wait_for(gateway: Gateway, status: int, headers: dict[str, str]) -> int:
    import time

    deadline = time.monotonic() + 5
    while (got := gateway.http.get(MODELS, headers=headers).status_code) != status and time.monotonic() < deadline:
        time.sleep(0.1)
    return got


def test_without_keys_a_local_program_may_come_in(shared_gateway: Gateway) -> None:
    assert shared_gateway.http.get(MODELS).status_code == 200


def test_first_key_shuts_the_door_and_revoking_it_leaves_it_shut(gateway: Gateway) -> None:
    assert gateway.http.get(MODELS).status_code == 200
    key_id, headers = make_key(gateway)
    assert wait_for(gateway, 401, {}) == 401
    assert gateway.http.get(MODELS, headers=headers).status_code == 200
    with gateway.database.session() as session:
        assert revoke_key(session, key_id)
    assert wait_for(gateway, 401, headers) == 401
    assert gateway.http.get(MODELS).status_code == 401


def test_bad_key_is_401_in_the_envelope(gateway: Gateway) -> None:
    make_key(gateway)
    for header in ("", "Bearer", "Bearer wrong", "Basic abc", "Bearer sk-tuneloop-" + "x" * 43):
        response = gateway.http.get(MODELS, headers={"Authorization": header} if header else {})
        assert response.status_code == 401, header
        error = gateway.error(response)
        assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key"), header


def test_with_keys_every_api_path_is_guarded_and_health_is_not(gateway: Gateway) -> None:
    make_key(gateway)
    assert gateway.http.get("/healthz").status_code == 200
    for path in ("/v1/ratings", "/v1/nothing", "/v1", "/metrics", "/v1/ratings/export"):
        assert gateway.http.get(path).status_code == 401


def test_key_is_stored_only_as_a_hash(gateway: Gateway, tmp_path: Path) -> None:
    _, headers = make_key(gateway)
    secret = headers["Authorization"].split()[1]
    stored = b"".join(path.read_bytes() for path in (tmp_path / "data").glob("tuneloop.db*"))
    assert secret.encode() not in stored
    row = sqlite3.connect(tmp_path / "data" / "tuneloop.db").execute("SELECT sha256, prefix FROM api_keys").fetchone()
    assert len(row[0]) == 64
    assert len(row[1]) < 20


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Host": ""}]
)
def test_keyless_server_refuses_a_web_page_of_elsewhere(shared_gateway: Gateway, headers: dict[str, str]) -> None:
    response = shared_gateway.http.get(MODELS, headers=headers)
    assert response.status_code == 403
    assert shared_gateway.error(response)["code"] == "host_not_allowed"


@pytest.mark.parametrize(
    "headers", [{"Host": "localhost:8000"}, {"Origin": "http://127.0.0.1:8000"}, {"Host": "[::1]:80"}]
)
def test_keyless_server_answers_under_its_own_names(shared_gateway: Gateway, headers: dict[str, str]) -> None:
    assert shared_gateway.http.get(MODELS, headers=headers).status_code == 200


def test_public_address_without_keys_is_refused_at_start(tmp_path: Path, demo_model: Path) -> None:
    done = run_cli("up", "--model", str(demo_model), "--host", "0.0.0.0", "--port", "0", "--data-dir", str(tmp_path))
    assert done.returncode == 2
    assert "tuneloop keys create" in done.stderr


def test_keys_are_made_listed_and_revoked_on_the_command_line(tmp_path: Path) -> None:
    where = ("--data-dir", str(tmp_path))
    secret = run_cli("keys", "create", "--name", "laptop", *where).stdout.strip()
    assert secret.startswith("sk-tuneloop-")
    listed = run_cli("keys", "list", *where).stdout
    assert "laptop" in listed
    assert secret not in listed
    key_id = next(word for word in listed.split() if word.startswith("key_"))
    assert run_cli("keys", "revoke", key_id, *where).returncode == 0
    assert run_cli("keys", "revoke", "key_nobody", *where).returncode == 2
