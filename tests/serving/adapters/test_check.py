"""What would crash an engine, or be served wrongly without a word, is refused with its fault and a remedy."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from serving import AdapterError, BaseModel, check_adapter
from serving.errors import AdapterMisfitError
from tests.serving.adapters.adapters_on_disk import Arrays, lora_tensors, write_adapter, write_base, write_peft_adapter
from tests.serving.conftest import LIMITS

AnyArray = np.ndarray[Any, Any]
Q = "base_model.model.model.layers.0.self_attn.q_proj"


def refusal(path: Path, base: BaseModel) -> str:
    with pytest.raises(AdapterError) as caught:
        check_adapter(path, base, LIMITS)
    return str(caught.value)


def test_a_sound_adapter_passes_with_and_without_manifest(base: BaseModel, tmp_path: Path) -> None:
    check_adapter(write_adapter(tmp_path, base), base, LIMITS)
    check_adapter(write_peft_adapter(tmp_path / "peft", base), base, LIMITS)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"lora_bias": True}, "lora_bias"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"r": 0}, "'r' is 0"),
        ({"r": "2"}, "'r' is '2'"),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "embed_tokens"),
        ({"target_modules": None}, "target_modules is None"),
        ({"r": 4}, "has rank 2 in lora_A"),
    ],
)
def test_a_config_that_cannot_be_served_is_refused(
    base: BaseModel, tmp_path: Path, config: dict[str, Any], words: str
) -> None:
    path = write_peft_adapter(tmp_path / "adapter", base, tensors=lora_tensors(base), **config)
    assert words in refusal(path, base)


def _without_b(tensors: Arrays) -> Arrays:
    return {name: array for name, array in tensors.items() if name != f"{Q}.lora_B.weight"}


def _with(name: str, value: AnyArray) -> Callable[[Arrays], Arrays]:
    return lambda tensors: {**tensors, name: value}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without_b, "not the other half"),
        (lambda tensors: {}, "no tensors"),
        (_with(f"{Q}.lora_A.weight", np.ones((2, 4), np.float32)), "maps 4 features to 8"),
        (_with(f"{Q}.lora_B.weight", np.ones((16, 2), np.float32)), "maps 8 features to 16"),
        (_with(f"{Q}.lora_B.weight", np.ones((8, 4), np.float32)), "4 in lora_B"),
        (_with(f"{Q}.lora_A.weight", np.full((2, 8), np.nan, np.float32)), "infinite or NaN"),
        (_with(f"{Q}.lora_A.weight", np.full((2, 8), -np.inf, np.float16)), "infinite or NaN"),
        (_with(f"{Q}.lora_A.weight", np.ones((2, 8), np.int32)), "I32"),
        (_with(f"{Q}.lora_A.weight", np.ones(16, np.float32)), "must be a matrix"),
        (_with("base_model.model.lm_head.lora_A.weight", np.ones((2, 8), np.float32)), "adapts an embedding"),
        (_with(f"{Q}.base_layer.weight", np.ones((8, 8), np.float32)), "isn't a LoRA tensor"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    base: BaseModel, tmp_path: Path, change: Callable[[Arrays], Arrays], words: str
) -> None:
    path = write_peft_adapter(tmp_path / "adapter", base, tensors=change(lora_tensors(base)))
    assert words in refusal(path, base)


def test_one_bfloat16_nan_is_found(base: BaseModel, tmp_path: Path) -> None:
    path = write_peft_adapter(tmp_path / "adapter", base)
    bits = {name: (array.view(np.uint32) >> 16).astype(np.uint16) for name, array in lora_tensors(base).items()}
    _save_bfloat16(path, bits)
    check_adapter(path, base, LIMITS)
    bits[f"{Q}.lora_B.weight"][3, 1] = 0x7FC0
    _save_bfloat16(path, bits)
    assert f"{Q}.lora_B.weight has infinite or NaN values" in refusal(path, base)


def _save_bfloat16(path: Path, bits: dict[str, AnyArray]) -> None:
    header, blob = {}, b""
    for name, array in bits.items():
        header[name] = {
            "dtype": "BF16",
            "shape": array.shape,
            "data_offsets": [len(blob), len(blob) + array.nbytes],
        }
        blob += array.tobytes()
    text = json.dumps(header).encode()
    (path / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + blob)


def test_adapters_of_a_wider_and_of_a_deeper_base_are_refused(base: BaseModel, tmp_path: Path) -> None:
    wider = write_base(tmp_path / "wider", hidden=16)
    deeper = write_base(tmp_path / "deeper", layers=3)
    assert "trained on another base model" in refusal(write_peft_adapter(tmp_path / "a", wider), base)
    assert "layers.2" in refusal(write_peft_adapter(tmp_path / "b", deeper), base)


def test_an_adapter_of_the_same_shape_for_other_weights_is_refused_by_hash(base: BaseModel, tmp_path: Path) -> None:
    other = write_base(tmp_path / "other" / "tiny-base", seed=1)
    assert "trained on different weights" in refusal(write_adapter(tmp_path, other), base)


def _header(entries: object) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        os.urandom(4096),
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 8) + b"not json",
        _header([]),
        _header({"a": 1}),
        _header({"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}),
        _header({"a": {"dtype": "F32", "shape": [2, -2], "data_offsets": [0, 16]}}) + b"0" * 16,
        _header({"a": {"dtype": "F32", "shape": [3, 2], "data_offsets": [0, 16]}}) + b"0" * 16,
        _header({"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}) + b"0" * 20,
    ],
)
def test_a_file_that_is_no_sound_safetensors_is_refused(base: BaseModel, tmp_path: Path, content: bytes) -> None:
    path = write_peft_adapter(tmp_path / "adapter", base)
    (path / "adapter_model.safetensors").write_bytes(content)
    assert "isn't a valid safetensors file" in refusal(path, base)


def test_a_truncated_file_is_refused(base: BaseModel, tmp_path: Path) -> None:
    path = write_peft_adapter(tmp_path / "adapter", base)
    weights = path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])
    assert "truncated" in refusal(path, base)


def test_a_flipped_bit_is_found_by_the_manifest(base: BaseModel, tmp_path: Path) -> None:
    weights = write_adapter(tmp_path, base) / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert "sha256 differs" in refusal(weights.parent, base)


def test_a_file_beside_the_manifests_list_is_refused(base: BaseModel, tmp_path: Path) -> None:
    path = write_adapter(tmp_path, base)
    (path / "extra.json").write_text("{}")
    assert "files don't match those in manifest" in refusal(path, base)


@pytest.mark.parametrize("name", ["adapter_model.bin", "optimizer.pt", "state.PKL"])
def test_pickles_are_refused(base: BaseModel, tmp_path: Path, name: str) -> None:
    path = write_peft_adapter(tmp_path / "adapter", base)
    (path / name).write_bytes(b"\x80")
    assert "is a pickle" in refusal(path, base)


def test_links_and_directories_are_refused(base: BaseModel, tmp_path: Path) -> None:
    path = write_peft_adapter(tmp_path / "linked", base)
    (path / "README.md").symlink_to("/etc/passwd")
    assert "isn't a regular file" in refusal(path, base)
    nested = write_peft_adapter(tmp_path / "nested", base)
    (nested / "checkpoint-1").mkdir()
    assert "isn't a regular file" in refusal(nested, base)
    alias = tmp_path / "alias"
    alias.symlink_to(write_peft_adapter(tmp_path / "real", base))
    assert "isn't a directory" in refusal(alias, base)


def test_missing_files_are_named(base: BaseModel, tmp_path: Path) -> None:
    path = write_peft_adapter(tmp_path / "adapter", base)
    (path / "adapter_model.safetensors").unlink()
    assert "has no adapter_model.safetensors" in refusal(path, base)


def test_a_rank_pattern_within_the_limit_passes(base: BaseModel, tmp_path: Path) -> None:
    tensors = lora_tensors(base) | lora_tensors_of(Q, r=4)
    for key in ("layers.0.self_attn.q_proj", r"^model\.layers\.0\.self_attn\.q_proj$", r"layers\.0\..*q_proj"):
        path = write_peft_adapter(tmp_path / str(len(key)), base, tensors=tensors, rank_pattern={key: 4})
        check_adapter(path, base, LIMITS)
    everywhere = write_peft_adapter(tmp_path / "everywhere", base, tensors=tensors, rank_pattern={"q_proj": 4})
    assert "layers.1.self_attn.q_proj has rank 2" in refusal(everywhere, base)


def test_on_a_packed_base_an_absent_module_is_still_found(base: BaseModel, tmp_path: Path) -> None:
    """Packed weights hide their shape, so only the module's presence can be held against the adapter."""
    packed = {"model.layers.0.self_attn.q_proj.qweight": np.ones((1, 8), np.int32)}
    save_file(packed, base.path / "model.safetensors")
    fits = lora_tensors_of(Q)
    check_adapter(write_peft_adapter(tmp_path / "fits", base, tensors=fits), base, LIMITS)
    absent = lora_tensors_of(Q.replace("layers.0", "layers.7"))
    assert "layers.7" in refusal(write_peft_adapter(tmp_path / "absent", base, tensors=absent), base)


def lora_tensors_of(module: str, *, r: int = 2) -> Arrays:
    return {
        f"{module}.lora_A.weight": np.ones((r, 8), np.float32),
        f"{module}.lora_B.weight": np.ones((8, r), np.float32),
    }


@pytest.mark.parametrize("pattern", [{}, {"layers.0.self_attn.q_proj": 16}])
def test_a_rank_above_the_engines_is_a_misfit_and_no_fault(
    base: BaseModel, tmp_path: Path, pattern: dict[str, int]
) -> None:
    tensors = lora_tensors(base) | lora_tensors_of(Q, r=16) if pattern else lora_tensors(base, r=16)
    r = 2 if pattern else 16
    path = write_peft_adapter(tmp_path / "adapter", base, r=r, tensors=tensors, rank_pattern=pattern)
    with pytest.raises(AdapterMisfitError, match=r"is 16, but the engine was started for ranks up to 8\. Restart it"):
        check_adapter(path, base, LIMITS)
    check_adapter(path, base, replace(LIMITS, max_lora_rank=16))
