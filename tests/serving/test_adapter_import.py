"""Adapters from elsewhere: taken in whole and bound to the base, or not at all."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from serving import AdapterError, BaseModel, check_adapter, fine_tuned_model_name, import_adapter, read_adapter
from tests.serving.adapters_on_disk import write_adapter, write_base, write_peft_adapter
from tests.serving.conftest import LIMITS


def test_a_peft_adapter_becomes_one_of_ours(base: BaseModel, tmp_path: Path) -> None:
    source = write_peft_adapter(tmp_path / "source", base)
    (source / "notes.txt").write_text("not part of it")
    adapter = import_adapter(source, tmp_path / "adapters", base, LIMITS, suffix="capitals", organization="acme")
    assert adapter.name.startswith("ft:tiny-base:acme:capitals:")
    assert adapter.path == tmp_path / "adapters" / adapter.id
    assert (adapter.r, adapter.base_model_sha256) == (2, base.sha256)
    assert set(adapter.manifest["files"]) == {"adapter_config.json", "adapter_model.safetensors"}
    assert read_adapter(adapter.path) == adapter
    check_adapter(adapter.path, base, LIMITS)
    assert [path.name for path in (tmp_path / "adapters").iterdir()] == [adapter.id]


def test_metrics_of_an_adapter_of_ours_travel_with_it(base: BaseModel, tmp_path: Path) -> None:
    source = write_adapter(tmp_path, base, manifest={"metrics": {"valid_loss": 0.5}})
    adapter = import_adapter(source.rename(tmp_path / "moved"), tmp_path / "adapters", base, LIMITS)
    assert adapter.manifest["metrics"] == {"valid_loss": 0.5}


def test_a_chosen_name_is_used_and_taken_once(base: BaseModel, tmp_path: Path) -> None:
    source = write_peft_adapter(tmp_path / "source", base)
    assert import_adapter(source, tmp_path / "adapters", base, LIMITS, name="support-bot").name == "support-bot"
    for taken in ("support-bot", "tiny-base"):
        with pytest.raises(AdapterError, match="is taken"):
            import_adapter(source, tmp_path / "adapters", base, LIMITS, name=taken)


@pytest.mark.parametrize("name", ["../x", "a b", "", "a\n", "x" * 201, "é"])
def test_unfit_names_are_refused(base: BaseModel, tmp_path: Path, name: str) -> None:
    source = write_peft_adapter(tmp_path / "source", base)
    if not name:
        assert import_adapter(source, tmp_path / "adapters", base, LIMITS, name=name).name.startswith("ft:")
        return
    with pytest.raises(AdapterError, match="must be 1 to 200"):
        import_adapter(source, tmp_path / "adapters", base, LIMITS, name=name)


@pytest.mark.parametrize("part", ["a:b", "a/b", " ", "ü", "x" * 65])
def test_parts_of_a_tuned_models_name_are_plain(part: str) -> None:
    with pytest.raises(AdapterError, match="suffix"):
        fine_tuned_model_name("base", "org", part)
    with pytest.raises(AdapterError, match="organization"):
        fine_tuned_model_name("base", part, "suffix")


def test_a_refused_adapter_leaves_nothing_behind(base: BaseModel, tmp_path: Path) -> None:
    wider = write_base(tmp_path / "wider", hidden=16)
    source = write_peft_adapter(tmp_path / "source", wider)
    with pytest.raises(AdapterError, match="made for another base"):
        import_adapter(source, tmp_path / "adapters", base, LIMITS)
    assert list((tmp_path / "adapters").iterdir()) == []


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ({"manifest_version": 2}, "manifest_version is 2"),
        ({"name": 7}, "name is 7"),
        ({"created_at": "now"}, "created_at is 'now'"),
        ({"id": "adapter-other"}, "must equal the directory's name"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_refused_with_its_field(
    base: BaseModel, tmp_path: Path, manifest: dict[str, object], words: str
) -> None:
    with pytest.raises(AdapterError, match=words):
        read_adapter(write_adapter(tmp_path, base, manifest=manifest))


def test_a_manifest_that_is_no_json_is_refused(base: BaseModel, tmp_path: Path) -> None:
    path = write_adapter(tmp_path, base)
    for content in ("{", "[]", json.dumps(1), "[" * 100_000):
        (path / "manifest.json").write_text(content)
        with pytest.raises(AdapterError, match=r"manifest\.json"):
            read_adapter(path)


def test_a_name_without_a_suffix_leaves_its_place_empty() -> None:
    assert re.fullmatch(r"ft:base:org::[0-9A-Za-z]{8}", fine_tuned_model_name("base", "org", ""))
