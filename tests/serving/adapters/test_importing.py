"""Adapters from elsewhere: taken in whole and bound to the base, or not at all."""

from __future__ import annotations

import json
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adapter_format.names import fine_tuned_model_name
from serving import AdapterError, BaseModel, check_adapter, import_adapter, read_adapter
from serving.adapters.importing import remember_removed, taken_names
from serving.adapters.names import REMOVED_NAMES, NameTakenError, check_chosen_name
from serving.errors import AdapterMisfitError
from tests.serving.adapters.adapters_on_disk import write_adapter, write_base, write_peft_adapter
from tests.serving.adapters.bad_adapters import with_tokenizer
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
        with pytest.raises(AdapterError, match="already used"):
            import_adapter(source, tmp_path / "adapters", base, LIMITS, name=taken)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a b", "", "a\n", "a\0", "a\\b", "x" * 201, "é", "适配器"])
def test_unfit_names_are_refused(base: BaseModel, tmp_path: Path, name: str) -> None:
    source = write_peft_adapter(tmp_path / "source", base)
    if not name:
        assert import_adapter(source, tmp_path / "adapters", base, LIMITS, name=name).name.startswith("ft:")
        return
    with pytest.raises(AdapterError, match="must be 1 to 200"):
        import_adapter(source, tmp_path / "adapters", base, LIMITS, name=name)


@pytest.mark.parametrize("name", ["a/../b", "a/..", "a:../b", "a/./b", "a//b", "a/.:x"])
def test_names_that_read_like_paths_are_refused(base: BaseModel, tmp_path: Path, name: str) -> None:
    source = write_peft_adapter(tmp_path / "source", base)
    with pytest.raises(AdapterError, match="looks like a path"):
        import_adapter(source, tmp_path / "adapters", base, LIMITS, name=name)


def test_nobody_chooses_a_name_of_the_kind_that_training_hands_out() -> None:
    for name in ("ft:base:org:x:12345678", "mine:ckpt-step-10"):
        with pytest.raises(AdapterError, match="reserved for models trained here"):
            check_chosen_name(name)
    check_chosen_name("team/support-bot:v2")


def test_the_name_of_a_removed_adapter_stays_taken(base: BaseModel, tmp_path: Path) -> None:
    source, adapters = write_peft_adapter(tmp_path / "source", base), tmp_path / "adapters"
    shutil.rmtree(import_adapter(source, adapters, base, LIMITS, name="support-bot").path)
    remember_removed(adapters, "support-bot")
    remember_removed(adapters, "support-bot")
    assert taken_names(adapters, base) == {"support-bot", "tiny-base"}
    assert len((adapters / REMOVED_NAMES).read_text().splitlines()) == 1
    with pytest.raises(NameTakenError, match="already used, possibly by a removed adapter"):
        import_adapter(source, adapters, base, LIMITS, name="support-bot")


def test_a_power_cut_amid_a_removed_name_costs_no_other(base: BaseModel, tmp_path: Path) -> None:
    (tmp_path / REMOVED_NAMES).write_bytes(b'"one"\n"tw')
    remember_removed(tmp_path, "three")
    assert taken_names(tmp_path, base) == {"one", "three", "tiny-base"}


def test_of_many_who_import_under_one_name_at_once_one_wins(base: BaseModel, tmp_path: Path) -> None:
    source, adapters = write_peft_adapter(tmp_path / "source", base), tmp_path / "adapters"
    together = threading.Barrier(8)

    def enter(_: int) -> str:
        together.wait()
        try:
            return import_adapter(source, adapters, base, LIMITS, name="support-bot").id
        except NameTakenError:
            return "taken"

    with ThreadPoolExecutor(8) as threads:
        came_back = list(threads.map(enter, range(8)))
    assert came_back.count("taken") == 7
    assert [path.name for path in adapters.iterdir()] == [next(id for id in came_back if id != "taken")]


def test_a_rank_that_the_engine_was_not_started_for_comes_in(base: BaseModel, tmp_path: Path) -> None:
    source = write_peft_adapter(tmp_path / "source", base, r=512)
    adapter = import_adapter(source, tmp_path / "adapters", base)
    assert adapter.r == 512
    with pytest.raises(AdapterMisfitError):
        check_adapter(adapter.path, base, LIMITS)
    with pytest.raises(AdapterMisfitError):
        import_adapter(source, tmp_path / "adapters", base, LIMITS)


@pytest.mark.parametrize(
    "named",
    [
        "",
        None,
        "org/Tiny-Base",
        "/models/tiny-base",
        "C:\\models\\tiny-base",
        "unsloth/tiny-base-unsloth-bnb-4bit",
        "/cache/hub/models--org--tiny-base/snapshots/0123abcd",
    ],
)
def test_an_adapter_whose_base_has_our_bases_name_comes_in(base: BaseModel, tmp_path: Path, named: object) -> None:
    source = write_peft_adapter(tmp_path / "source", base, base_model_name_or_path=named)
    assert import_adapter(source, tmp_path / "adapters", base, LIMITS).base_model == "tiny-base"


def test_an_adapter_of_another_name_comes_in_by_its_hash_or_our_word(base: BaseModel, tmp_path: Path) -> None:
    other = "/cache/hub/models--org--tiny-base-2/snapshots/0123abcd"
    ours = write_adapter(tmp_path, base, base_model_name_or_path=other)
    theirs = write_peft_adapter(tmp_path / "theirs", base, base_model_name_or_path=other)
    adapters = tmp_path / "adapters"
    assert import_adapter(ours.rename(tmp_path / "ours"), adapters, base, LIMITS)
    with pytest.raises(AdapterError, match="same_base=true"):
        import_adapter(theirs, adapters, base, LIMITS)
    assert import_adapter(theirs, adapters, base, LIMITS, same_base=True)


def test_what_parity_is_measured_by_travels_with_the_adapter(base: BaseModel, tmp_path: Path) -> None:
    reference = {"dtype": "float32", "prompts": [[1, 2]]}
    source = write_adapter(tmp_path, base, manifest={"parity_reference": reference, "parity": {"passed": True}})
    adapter = import_adapter(source.rename(tmp_path / "moved"), tmp_path / "adapters", base, LIMITS)
    assert adapter.manifest["parity_reference"] == reference
    assert "parity" not in adapter.manifest  # that it passed elsewhere says nothing here


def test_tokens_of_the_base_are_no_added_ones(base: BaseModel, tmp_path: Path) -> None:
    source = write_peft_adapter(tmp_path / "source", with_tokenizer(base))
    for name in ("tokenizer.json", "chat_template.jinja"):
        (source / name).write_bytes((base.path / "tokenizer.json").read_bytes())
    (source / "tokenizer_config.json").write_text('{"added_tokens_decoder": {"2": {"content": "<eos>"}}}')
    (source / "added_tokens.json").write_text("{}")
    assert import_adapter(source, tmp_path / "adapters", base, LIMITS)


@pytest.mark.parametrize("part", ["a:b", "a/b", " ", "ü", "x" * 65])
def test_parts_of_a_tuned_models_name_are_plain(part: str) -> None:
    with pytest.raises(ValueError, match="suffix"):
        fine_tuned_model_name("base", "org", part)
    with pytest.raises(ValueError, match="organization"):
        fine_tuned_model_name("base", part, "suffix")


def test_a_refused_adapter_leaves_nothing_behind(base: BaseModel, tmp_path: Path) -> None:
    wider = write_base(tmp_path / "wider", hidden=16)
    source = write_peft_adapter(tmp_path / "source", wider)
    with pytest.raises(AdapterError, match="trained on another base model"):
        import_adapter(source, tmp_path / "adapters", base, LIMITS)
    assert list((tmp_path / "adapters").iterdir()) == []


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ({"manifest_version": 2}, "manifest_version is 2"),
        ({"name": 7}, "name is 7"),
        ({"created_at": "now"}, "created_at is 'now'"),
        ({"id": "adapter-other"}, "must match the directory's name"),
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
