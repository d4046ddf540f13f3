"""`/v1/keys` and `/v1/settings` over HTTP: made, shown once, listed, revoked; and nobody locks the admins out."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from server.app.settings_shown import describe
from server.settings import load_settings
from tests.server.conftest import Gateway, StartGateway

KEYS = "/v1/keys"


def make(gateway: Gateway, headers: dict[str, str] | None = None, **body: Any) -> dict[str, Any]:
    answer = gateway.http.post(KEYS, json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    key: dict[str, Any] = answer.json()
    return key


def bearer(key: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {key['key']}"}


@pytest.mark.both_databases
def test_the_first_key_is_an_admins_and_counts_at_once(gateway: Gateway) -> None:
    assert gateway.http.get(KEYS).json()["data"] == []
    answer = gateway.http.post(KEYS, json={"name": "me"})
    first = answer.json()
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    assert first["key"].startswith("sk-tuneloop-")
    assert (first["object"], first["is_admin"], first["revoked_at"]) == ("api_key", True, None)
    assert "needs a key" in first["notice"]
    assert gateway.http.get(KEYS).status_code == 401
    (listed,) = gateway.http.get(KEYS, headers=bearer(first)).json()["data"]
    assert (listed["id"], listed["name"], listed["current"]) == (first["id"], "me", True)
    assert "key" not in listed
    assert first["key"] not in str(listed)


@pytest.mark.both_databases
def test_of_two_who_come_without_a_key_at_once_one_makes_the_first(gateway: Gateway) -> None:
    together = threading.Barrier(4)

    def first(number: int) -> int:
        together.wait()
        return gateway.http.post(KEYS, json={"name": f"me {number}"}).status_code

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(first, range(4))) == [201, 401, 401, 401]


@pytest.mark.both_databases
def test_later_keys_are_plain_unless_asked_and_may_not_see_the_others(gateway: Gateway) -> None:
    admin = make(gateway)
    plain = make(gateway, bearer(admin), name="ci", project="search")
    other = make(gateway, bearer(admin), name="ops", admin=True)
    assert [key["is_admin"] for key in (plain, other)] == [False, True]
    assert (plain["project"], plain["notice"]) == ("search", None)
    assert gateway.http.get("/v1/models", headers=bearer(plain)).status_code == 200
    for method, path in (("GET", KEYS), ("POST", KEYS), ("DELETE", f"{KEYS}/{admin['id']}"), ("GET", "/v1/settings")):
        answer = gateway.http.request(method, path, headers=bearer(plain))
        assert (path, answer.status_code, gateway.error(answer)["code"]) == (path, 403, "admin_key_required")


@pytest.mark.both_databases
def test_a_revoked_key_is_refused_at_once_and_stays_in_the_list(gateway: Gateway) -> None:
    admin = make(gateway)
    plain = make(gateway, bearer(admin), name="ci")
    revoked = gateway.http.delete(f"{KEYS}/{plain['id']}", headers=bearer(admin)).json()
    assert revoked["deleted"] is True
    assert gateway.http.get("/v1/models", headers=bearer(plain)).status_code == 401
    again = gateway.http.delete(f"{KEYS}/{plain['id']}", headers=bearer(admin)).json()
    assert again["revoked_at"] == revoked["revoked_at"] is not None
    listed = gateway.http.get(KEYS, headers=bearer(admin)).json()["data"]
    assert {key["id"] for key in listed} == {admin["id"], plain["id"]}


def test_the_last_admins_key_goes_only_when_forced(gateway: Gateway) -> None:
    admin = make(gateway)
    answer = gateway.http.delete(f"{KEYS}/{admin['id']}", headers=bearer(admin))
    assert (answer.status_code, gateway.error(answer)["code"]) == (409, "last_admin_key")
    assert "tuneloop keys create --admin" in gateway.error(answer)["message"]
    assert gateway.http.get(KEYS, headers=bearer(admin)).status_code == 200
    assert gateway.http.delete(f"{KEYS}/{admin['id']}?force=true", headers=bearer(admin)).status_code == 200
    assert gateway.http.get(KEYS, headers=bearer(admin)).status_code == 401


@pytest.mark.both_databases
def test_of_two_admins_who_revoke_each_other_at_once_one_is_left(gateway: Gateway) -> None:
    one = make(gateway)
    other = make(gateway, bearer(one), admin=True)
    together = threading.Barrier(2)

    def revoke(pair: tuple[dict[str, Any], dict[str, Any]]) -> int:
        together.wait()
        return gateway.http.delete(f"{KEYS}/{pair[1]['id']}", headers=bearer(pair[0])).status_code

    with ThreadPoolExecutor(2) as threads:
        statuses = sorted(threads.map(revoke, [(one, other), (other, one)]))
    assert statuses in ([200, 401], [200, 409])
    with gateway.database.session() as session:
        from server.access.keys import list_keys

        assert [key.revoked_at is None for key in list_keys(session)].count(True) == 1


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": ""}, "name"),
        ({"name": " "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"project": "../x"}, "project"),
        ({"admin": False}, "admin"),
        ({"nmae": "x"}, "nmae"),
        ({"admin": "perhaps"}, "admin"),
    ],
)
def test_a_key_that_cannot_be_meant_is_refused_and_none_is_made(
    shared_gateway: Gateway, body: dict[str, Any], param: str
) -> None:
    answer = shared_gateway.http.post(KEYS, json=body)
    assert (answer.status_code, shared_gateway.error(answer)["param"]) == (400, param)
    assert shared_gateway.http.get(KEYS).json()["data"] == []


def test_keys_come_page_by_page(gateway: Gateway) -> None:
    admin = make(gateway)
    ids = [admin["id"], *(make(gateway, bearer(admin), name=f"k{n}")["id"] for n in range(3))]
    listed = [key["id"] for key in gateway.http.get(KEYS, headers=bearer(admin)).json()["data"]]
    assert sorted(listed) == sorted(ids)
    page = gateway.http.get(f"{KEYS}?limit=2&after={listed[0]}", headers=bearer(admin)).json()
    assert ([key["id"] for key in page["data"]], page["has_more"]) == (listed[1:3], True)
    newest_first = gateway.http.get(f"{KEYS}?order=desc", headers=bearer(admin)).json()
    assert [key["id"] for key in newest_first["data"]] == listed[::-1]
    for wrong in ("limit=0", "order=up", "after=key_nobody"):
        assert gateway.http.get(f"{KEYS}?{wrong}", headers=bearer(admin)).status_code == 400


def test_an_unknown_key_is_404(gateway: Gateway) -> None:
    for key_id in ("key_nobody", "%00", "a b"):
        answer = gateway.http.delete(f"{KEYS}/{key_id}")
        assert (answer.status_code, gateway.error(answer)["code"]) == (404, "key_not_found")


def test_no_log_has_the_key(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    key = make(gateway)
    gateway.http.get(KEYS, headers=bearer(key))
    assert key["key"] not in caplog.text


def test_settings_are_told_with_origin_and_without_secrets(start_gateway: StartGateway) -> None:
    gateway = start_gateway(requests_per_minute=600)
    told = {one["id"]: one for one in gateway.http.get("/v1/settings").json()["data"]}
    assert (told["requests_per_minute"]["value"], told["requests_per_minute"]["object"]) == ("600", "setting")
    assert (told["port"]["origin"], told["model"]["value"]) == ("default", None)
    assert told["port"]["description"]
    assert told["remote_engine_keys"]["is_secret"] is True


def test_each_origin_is_told_and_every_secret_hidden(tmp_path: Path) -> None:
    file = tmp_path / "tuneloop.yaml"
    file.write_text(
        "port: 9000\nremote_engines: {lab: 'https://me:hunter2@lab.example/v1'}\nremote_engine_keys: {lab: hunter2}\n"
        "engine_args: ['--api-key', 'hunter2', '--hf-token=hunter2', '--swap-space', '4']\n"
    )
    environ = {"TUNELOOP_DATABASE_URL": "postgresql+psycopg://u:hun/ter2@db/t?password=hunter2&sslmode=require"}
    settings = load_settings({"host": "localhost"}, environ=environ, config_file=file).settings
    told = {name: (value, origin) for name, value, origin, _ in describe(settings)}
    assert "ter2" not in str(told)
    assert told["port"] == ("9000", str(file))
    assert told["host"] == ("localhost", "flag")
    assert told["database_url"] == (
        "postgresql+psycopg://***@db/t?password=***&sslmode=require",
        "TUNELOOP_DATABASE_URL",
    )
    assert told["remote_engines"][0] == "lab=https://***@lab.example/v1"
    assert told["engine_args"][0] == "['--api-key', '***', '--hf-token=***', '--swap-space', '4']"
    assert told["remote_engine_keys"][0] == "lab=***"
