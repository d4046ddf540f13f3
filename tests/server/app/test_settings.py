"""Settings rise from default over file and environment to flag; faults are told all together, with their origin."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.settings import SettingsError, load_settings
from tests.conftest import run_cli


def test_each_layer_overrides_the_one_beneath(tmp_path: Path) -> None:
    file = tmp_path / "tuneloop.yaml"
    file.write_text("port: 1111\nhost: localhost\norganization: filed\n")
    loaded = load_settings(
        {"port": "3333", "host": None},
        environ={"TUNELOOP_PORT": "2222", "TUNELOOP_ORGANIZATION": "env", "OTHER": "x"},
        config_file=file,
    )
    assert (loaded.settings.port, loaded.settings.host, loaded.settings.organization) == (3333, "localhost", "env")
    assert loaded.origins["port"] == "flag"
    assert loaded.origins["host"] == str(file)
    assert loaded.origins["organization"] == "TUNELOOP_ORGANIZATION"
    assert loaded.origins["max_adapters"] == "default"


def test_all_faults_are_told_with_value_and_origin() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"port": "99999"}, environ={"TUNELOOP_MAX_LORA_RANK": "17", "TUNELOOP_ORGANIZATION": "A B"})
    message = str(caught.value)
    assert "port = '99999' (from flag)" in message
    assert "(from TUNELOOP_MAX_LORA_RANK)" in message
    assert "(from TUNELOOP_ORGANIZATION)" in message


@pytest.mark.parametrize("content", ["- a\n", "port: [", "prot: 1\n", "\x00"])
def test_bad_file_is_told_with_its_path(tmp_path: Path, content: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    with pytest.raises(SettingsError, match=r"bad\.yaml"):
        load_settings(config_file=file, environ={})


def test_settings_command_shows_values_and_origins_and_hides_passwords() -> None:
    done = run_cli(
        "settings",
        "--port",
        "9000",
        TUNELOOP_DATABASE_URL="postgresql+psycopg://me:hush@db/t",
        TUNELOOP_ENGINE_ARGS="--a --b",
    )
    assert done.returncode == 0, done.stderr
    assert "hush" not in done.stdout
    assert "***@db/t" in done.stdout
    assert "TUNELOOP_DATABASE_URL" in done.stdout
    assert "['--a', '--b']" in done.stdout
