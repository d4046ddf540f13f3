"""Base models: found, named, hashed, refused."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from adapter_format.hashing import base_model_sha256
from serving import BaseModel, BaseModelError, resolve_base_model
from training.preflight.model_shape import ModelShape


def test_a_folder_is_served_under_its_name(base: BaseModel) -> None:
    found = resolve_base_model(f"{base.path}/")
    assert (found.name, found.path, found.config["hidden_size"]) == ("tiny-base", base.path.resolve(), 8)


def test_hash_covers_names_and_contents_of_the_weights(base: BaseModel) -> None:
    content = hashlib.sha256((base.path / "model.safetensors").read_bytes()).hexdigest()
    assert base.sha256 == hashlib.sha256(f"model.safetensors {content}\n".encode()).hexdigest()


@pytest.mark.parametrize("split", [False, True])
def test_weights_that_lie_there_twice_count_once(base: BaseModel, split: bool) -> None:
    sizes = {"vocab_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    (base.path / "config.json").write_text(json.dumps(base.config | sizes))
    weights = base.path / "model.safetensors"
    if split:
        weights = weights.rename(base.path / "model-00001-of-00001.safetensors")
        index = {"weight_map": {"lm_head.weight": weights.name}}
        (base.path / "model.safetensors.index.json").write_text(json.dumps(index))
    alone = resolve_base_model(str(base.path))
    parameters = ModelShape.from_folder(base.path).parameters_on_disk
    (base.path / "consolidated.safetensors").write_bytes(weights.read_bytes())  # as in Mistral's repositories
    both = resolve_base_model(str(base.path))
    assert (both.weights_bytes, both.sha256) == (weights.stat().st_size, alone.sha256)
    assert ModelShape.from_folder(base.path).parameters_on_disk == parameters
    assert parameters


def test_hash_is_taken_from_the_cache_until_a_file_changes(base: BaseModel, tmp_path: Path) -> None:
    cache = tmp_path / "hashes" / "cache.json"
    resolve_base_model(str(base.path), hash_cache=cache)
    known = json.loads(cache.read_text())
    cache.write_text(json.dumps(dict.fromkeys(known, "from the cache")))
    assert resolve_base_model(str(base.path), hash_cache=cache).sha256 == "from the cache"
    weights = base.path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert resolve_base_model(str(base.path), hash_cache=cache).sha256 == base_model_sha256(base.path)


def test_a_damaged_hash_cache_is_made_again(base: BaseModel, tmp_path: Path) -> None:
    cache = tmp_path / "cache.json"
    cache.write_text("{")
    assert resolve_base_model(str(base.path), hash_cache=cache).sha256 == base.sha256


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: (path / "config.json").unlink(), "no config.json"),
        (lambda path: (path / "config.json").write_text("{"), "can't be read as JSON"),
        (lambda path: (path / "config.json").write_text("[]"), "isn't a JSON object"),
        (lambda path: (path / "tokenizer.json").unlink(), "no tokenizer"),
        (lambda path: (path / "model.safetensors").rename(path / "pytorch_model.bin"), "a pickle"),
        (
            lambda path: (path / "model.safetensors.index.json").write_text(
                '{"weight_map": {"a": "gone.safetensors"}}'
            ),
            "gone.safetensors",
        ),
    ],
)
def test_an_unfit_folder_is_refused_with_its_fault(base: BaseModel, damage: object, words: str) -> None:
    assert callable(damage)
    damage(base.path)
    with pytest.raises(BaseModelError, match=words):
        resolve_base_model(str(base.path))


@pytest.mark.parametrize("model", ["./no/such/folder", "/no/such/folder", "plainname", "a/b/c", ""])
def test_what_is_neither_folder_nor_hub_id_is_refused(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BaseModelError, match=r"isn't a hub id|no config\.json"):
        resolve_base_model(model)


def test_an_absent_hub_model_without_network_says_what_was_tried(tmp_path: Path) -> None:
    script = (
        "import serving\n"
        "try: serving.resolve_base_model('nobody/nothing')\n"
        "except serving.BaseModelError as error: print(error)"
    )
    said = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
    ).stdout
    assert "'nobody/nothing' isn't a local folder or in the hub cache" in said
    assert "HF_TOKEN" in said
