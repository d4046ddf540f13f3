"""Adapters with one fault each, made on any base with q_proj and down_proj; every door must refuse them by name."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serving import BaseModel
from tests.serving.adapters.adapters_on_disk import Arrays, lora_tensors, write_adapter, write_peft_adapter

Q = "base_model.model.model.layers.0.self_attn.q_proj"
A, B = f"{Q}.lora_A.weight", f"{Q}.lora_B.weight"
CONFIG, WEIGHTS, MANIFEST = "adapter_config.json", "adapter_model.safetensors", "manifest.json"
MERGE = "tuneloop export merge"


@dataclass(frozen=True)
class Bad:
    """An adapter that must be refused."""

    fault: str
    words: str
    """What the refusal must say, beside the fault's remedy."""
    write: Callable[[Path, BaseModel], Path]
    """Writes it to a path that isn't there yet, for a base; the directory."""

    def __str__(self) -> str:
        return self.fault


def with_tokenizer(base: BaseModel) -> BaseModel:
    """The base with a tokenizer of three tokens."""
    tokenizer = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"id": 2, "content": "<eos>"}]}
    (base.path / "tokenizer.json").write_text(json.dumps(tokenizer))
    return base


def configured(fault: str, words: str, **changes: Any) -> Bad:
    """One whose config says something else than its sound tensors need."""
    return Bad(fault, words, lambda path, base: write_peft_adapter(path, base, tensors=lora_tensors(base), **changes))


def tensored(fault: str, words: str, change: Callable[[Arrays], Arrays]) -> Bad:
    """One whose tensors are other than its config and base need."""
    return Bad(fault, words, lambda path, base: write_peft_adapter(path, base, tensors=change(lora_tensors(base))))


def filed(fault: str, words: str, name: str, content: bytes | Callable[[bytes], bytes] | None) -> Bad:
    """One with another content in one of its files; None: without that file."""

    def write(path: Path, base: BaseModel) -> Path:
        file = write_peft_adapter(path, base) / name
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content(file.read_bytes()) if callable(content) else content)
        return path

    return Bad(fault, words, write)


def manifested(fault: str, words: str, **changes: Any) -> Bad:
    """One of ours with another manifest."""
    return Bad(fault, words, lambda path, base: write_adapter(path.parent, base, manifest=changes).rename(path))


def having(**named: Callable[[Arrays], np.ndarray[Any, Any]]) -> Callable[[Arrays], Arrays]:
    """The tensors with these beside or instead of them; `Q` at a name's begin stands for the first q_proj."""
    return lambda tensors: tensors | {name.replace("Q", Q, 1): made(tensors) for name, made in named.items()}


def like(name: str, **change: Any) -> Callable[[Arrays], np.ndarray[Any, Any]]:
    """An array as wide as the tensor `name`, of another height, type or value."""

    def make(tensors: Arrays) -> np.ndarray[Any, Any]:
        shape = tuple(change.get("shape", tensors[name].shape))
        return np.full(shape, change.get("value", 0.5), change.get("dtype", np.float32))

    return make


def one_more(name: str, axis: int) -> Callable[[Arrays], np.ndarray[Any, Any]]:
    """The tensor `name`, longer by one along an axis."""

    def make(tensors: Arrays) -> np.ndarray[Any, Any]:
        shape = list(tensors[name].shape)
        shape[axis] += 1
        return np.ones(shape, np.float32)

    return make


def without(*names: str) -> Callable[[Arrays], Arrays]:
    return lambda tensors: {name: array for name, array in tensors.items() if name not in names}


def renamed(old: str, new: str) -> Callable[[Arrays], Arrays]:
    return lambda tensors: {name.replace(old, new): array for name, array in tensors.items()}


def header(entries: object, tail: bytes = b"") -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + tail


def rewritten(change: Callable[[dict[str, Any]], None]) -> Callable[[bytes], bytes]:
    """The safetensors file with another header."""

    def write(content: bytes) -> bytes:
        (length,) = struct.unpack("<Q", content[:8])
        entries = json.loads(content[8 : 8 + length])
        change(entries)
        return header(entries, content[8 + length :])

    return write


def name_twice(content: bytes) -> bytes:
    (length,) = struct.unpack("<Q", content[:8])
    text = content[8 : 8 + length].rstrip()
    first = json.dumps(A)[1:-1].encode()
    entry = json.dumps({A: json.loads(text)[A]})[1:-1].encode()
    assert first in text
    return header(text[:-1] + b"," + entry + b"}", content[8 + length :])


def rank_one_of(n: int) -> dict[str, int]:
    return {f"layers.{number}.q_proj": 2 for number in range(n)}


def shortened(entries: dict[str, Any]) -> None:
    entries[A]["shape"] = [1, *entries[A]["shape"][1:]]


def overlapping(entries: dict[str, Any]) -> None:
    entries[B]["data_offsets"] = entries[A]["data_offsets"]
    entries[B]["shape"] = entries[A]["shape"]


CONFIGS = [
    configured("another method", "peft_type is 'IA3'", peft_type="IA3"),
    configured("no method", "peft_type is None", peft_type=None),
    configured("DoRA", "use_dora is True", use_dora=True),
    configured("QALoRA", "use_qalora is True", use_qalora=True),
    configured("block-diagonal LoRA", "use_bdlora", use_bdlora={"target_modules_bd_a": ["q_proj"]}),
    configured("a bias of LoRA", "lora_bias is True", lora_bias=True),
    configured("all biases", "bias is 'all'", bias="all"),
    configured("LoRA's biases", "bias is 'lora_only'", bias="lora_only"),
    configured("modules_to_save", MERGE, modules_to_save=["lm_head"]),
    configured("trained tokens", "trainable_token_indices is [1]", trainable_token_indices=[1]),
    configured("activated LoRA", "alora_invocation_tokens", alora_invocation_tokens=[1]),
    configured("replicated layers", "layer_replication", layer_replication=[[0, 2], [1, 2]]),
    configured("individual parameters", "target_parameters", target_parameters=["experts.gate_up_proj"]),
    configured("Arrow", "arrow_config", arrow_config={"top_k": 2}),
    configured("KaSA", "kasa_config", kasa_config={"beta": 1}),
    configured("MonteCLoRA", "monteclora_config", monteclora_config={"num_samples": 2}),
    *(
        configured(name, f"init_lora_weights is '{name}'", init_lora_weights=name)
        for name in ("pissa", "pissa_niter_16", "olora", "loftq", "corda")
    ),
    configured("a number as init", "init_lora_weights is 7", init_lora_weights=7),
    configured("a classifier", "task_type is 'SEQ_CLS'", task_type="SEQ_CLS"),
    configured("rank 0", "'r' is 0", r=0),
    configured("a text as rank", "'r' is '2'", r="2"),
    configured("true as rank", "'r' is True", r=True),
    configured("rank 513", "no engine supports ranks above 512", r=513),
    configured("another rank than the tensors'", "has rank 2 in lora_A", r=4),
    configured("a list of ranks", "rank_pattern is [4]", rank_pattern=[4]),
    configured("rank 0 for a module", "'q_proj' is 0", rank_pattern={"q_proj": 0}),
    configured("rank 10,000 for a module", "'q_proj' is 10000", rank_pattern={"q_proj": 10_000}),
    configured("a rank for one module that its tensors don't have", "q_proj has rank 2", rank_pattern={"q_proj": 1}),
    configured("a pattern that never ends", "rank_pattern has the key '(.*a)*b'", rank_pattern={"(.*a)*b": 2}),
    configured("a pattern that is none", "rank_pattern has the key '[q'", rank_pattern={"[q": 2}),
    configured("241 patterns", "rank_pattern has 241 entries", rank_pattern=rank_one_of(241)),
    configured("no alpha", "lora_alpha is None", lora_alpha=None),
    configured("alpha NaN", "lora_alpha is nan", lora_alpha=float("nan")),
    configured("alpha infinite", "lora_alpha is inf", lora_alpha=float("inf")),
    configured("alpha of 400 digits", "lora_alpha is 1000", lora_alpha=10**400),
    configured("alpha 0", "lora_alpha is 0", lora_alpha=0),
    configured("a text as a module's alpha", "q_proj is 'x'", alpha_pattern={"q_proj": "x"}),
    configured("an alpha pattern that never ends", "alpha_pattern has the key", alpha_pattern={"(a|aa)+$": 4}),
    configured("rsLoRA maybe", "use_rslora is 'yes'", use_rslora="yes"),
    configured("no targets", "target_modules is None", target_modules=None),
    configured("an empty list of targets", "target_modules is []", target_modules=[]),
    configured("a number as target", "target_modules is [1]", target_modules=[1]),
    configured("an embedding as target", "'embed_tokens', an embedding", target_modules=["q_proj", "embed_tokens"]),
    configured("the output as target", "'lm_head', an embedding", target_modules="lm_head"),
    configured("4,097 targets", "target_modules has 4097 names", target_modules=["x"] * 4097),
    configured("tensors beside the targets", "which target_modules doesn't include", target_modules=["q_proj"]),
    configured("another base's name", "is 'org/other-7b'", base_model_name_or_path="org/other-7b"),
]

TENSORS = [
    tensored("no tensors", "has no tensors", lambda tensors: {}),
    tensored("only lora_A", "has lora_A but not the other half", without(B)),
    tensored("only lora_B", "has lora_B but not the other half", without(A)),
    tensored("too wide", "trained on another base model", having(**{"Q.lora_A.weight": one_more(A, 1)})),
    tensored("too high", "trained on another base model", having(**{"Q.lora_B.weight": one_more(B, 0)})),
    tensored("two ranks in a pair", "and 3 in lora_B", having(**{"Q.lora_B.weight": one_more(B, 1)})),
    tensored("NaN", f"{A} has infinite or NaN values", having(**{"Q.lora_A.weight": like(A, value=np.nan)})),
    tensored(
        "float16 infinity",
        "has infinite or NaN values",
        having(**{"Q.lora_A.weight": like(A, value=-np.inf, dtype=np.float16)}),
    ),
    tensored("beyond float16", "beyond ±65504", having(**{"Q.lora_B.weight": like(B, value=-65_536.0)})),
    tensored("whole numbers", "is I32", having(**{"Q.lora_A.weight": like(A, dtype=np.int32)})),
    tensored("float64", "is F64", having(**{"Q.lora_A.weight": like(A, dtype=np.float64)})),
    tensored("a vector", "must be a matrix", having(**{"Q.lora_A.weight": like(A, shape=(4,))})),
    tensored("a cube", "must be a matrix", having(**{"Q.lora_A.weight": like(A, shape=(2, 2, 2))})),
    tensored(
        "LoRA on the output",
        "lm_head.lora_A.weight adapts an embedding",
        having(**{"base_model.model.lm_head.lora_A.weight": like(A)}),
    ),
    tensored(
        "an adapted embedding",
        "of an adapted embedding",
        having(**{"base_model.model.model.embed_tokens.lora_embedding_A": like(A)}),
    ),
    tensored(
        "a whole embedding, as after tokens were added",
        "embed_tokens.weight is the full weight of an embedding",
        having(**{"base_model.model.model.embed_tokens.weight": like(A)}),
    ),
    tensored(
        "a whole output", "lm_head.weight is the full weight", having(**{"base_model.model.lm_head.weight": like(A)})
    ),
    tensored("a saved module", "modules_to_save", having(**{"base_model.model.score.modules_to_save.weight": like(A)})),
    tensored("DoRA's magnitudes", "of DoRA", having(**{"Q.lora_magnitude_vector": like(A, shape=(4,))})),
    tensored("a bias", "is a bias", having(**{"Q.bias": like(A, shape=(4,))})),
    tensored("a bias of lora_B", "isn't a LoRA tensor", having(**{"Q.lora_B.bias_": like(A, shape=(4,))})),
    tensored("PEFT's names in memory", "isn't a LoRA tensor", renamed(".weight", ".default.weight")),
    tensored("names without PEFT's prefix", "isn't a LoRA tensor", renamed("base_model.model.", "")),
    tensored("a layer that isn't there", "layers.77", renamed("layers.0.", "layers.77.")),
    tensored("a module that isn't there", "zq_proj", renamed("q_proj", "zq_proj")),
    tensored("a name with half a character", "ud800", renamed("layers.0.", "layers.0.\\ud800.")),
]

FILES = [
    filed("no config", f"has no {CONFIG}", CONFIG, None),
    filed("no weights", f"has no {WEIGHTS}", WEIGHTS, None),
    filed("a config that is no JSON", "can't be read as JSON", CONFIG, b"{"),
    filed("a config that is no text", "can't be read as JSON", CONFIG, b"\xff\xfe\x00"),
    filed("a config that is a list", "must be a JSON object", CONFIG, b"[]"),
    filed("a config of 100,000 brackets", "can't be read as JSON", CONFIG, b"[" * 100_000),
    filed("a config of 10 MB", "is larger than", CONFIG, b" " * 10_000_001),
    filed("empty weights", "has 0 bytes", WEIGHTS, b""),
    filed("cut weights", "truncated", WEIGHTS, lambda content: content[:-40]),
    filed("random weights", "isn't a valid safetensors file", WEIGHTS, os.urandom(4096)),
    filed("a header of an exabyte", "its header claims", WEIGHTS, struct.pack("<Q", 2**60) + b"{}"),
    filed("a header that is no JSON", "isn't JSON", WEIGHTS, header(b"hello, world")),
    filed("a header that is a list", "isn't a JSON object", WEIGHTS, header([])),
    filed("a tensor without a place", "lacks dtype", WEIGHTS, header({"a": 1})),
    filed(
        "a tensor of ten dimensions",
        "at most 8 lengths",
        WEIGHTS,
        header({"a": {"dtype": "F32", "shape": [1] * 10, "data_offsets": [0, 4]}}, b"0000"),
    ),
    filed(
        "a tensor of 4,000 digits",
        "at most 8 lengths",
        WEIGHTS,
        header({"a": {"dtype": "F32", "shape": [10**4000], "data_offsets": [0, 4]}}, b"0000"),
    ),
    filed("a shape that doesn't fit its bytes", "which doesn't match F32", WEIGHTS, rewritten(shortened)),
    filed("two tensors in one place", "doesn't start where the previous tensor ends", WEIGHTS, rewritten(overlapping)),
    filed("one tensor twice", "has a duplicate name", WEIGHTS, name_twice),
    filed("bytes behind the tensors", "belong to no tensor", WEIGHTS, lambda content: content + b"\0"),
    filed(
        "metadata that isn't text",
        "__metadata__",
        WEIGHTS,
        rewritten(lambda entries: entries.update(__metadata__={"format": 1})),
    ),
    filed("a pickle beside it", "is a pickle", "adapter_model.bin", b"\x80"),
    filed("a trainer's pickle", "is a pickle", "training_args.bin", b"\x80"),
    filed("an added token", "'<new>', which", "added_tokens.json", b'{"<new>": 999999}'),
    filed(
        "a known token with another number", MERGE, "tokenizer.json", b'{"added_tokens": [{"id": 9, "content": "a"}]}'
    ),
    filed(
        "an added token in the tokenizer's config",
        "leave out the tokenizer files",
        "tokenizer_config.json",
        b'{"added_tokens_decoder": {"999999": {"content": "<pad>"}}}',
    ),
    filed("a tokenizer that is none", "isn't a valid tokenizer file", "tokenizer.json", b'{"added_tokens": [7]}'),
]

MANIFESTS = [
    manifested("another base's hash", "trained on different weights", base_model_sha256="f" * 64),
    manifested("another file's hash", "sha256 differs", files={CONFIG: {"sha256": "0"}, WEIGHTS: {"sha256": "0"}}),
    manifested("a list of files that aren't there", "files don't match those in manifest", files={"x": {}}),
    manifested("a list of files that is none", "files don't match those in manifest", files=7),
    manifested("metrics that are none", "metrics in manifest.json must be", metrics=[1]),
    manifested("metrics of NaN", "isn't valid JSON", metrics={"valid_loss": float("nan")}),
    manifested("metrics with half a character", "isn't valid JSON", metrics={"\ud800": 1}),
    manifested("a config of 2 MB", "more than 1048576", config={"x": "y" * 2_000_000}),
]

BAD_ADAPTERS = [*CONFIGS, *TENSORS, *FILES, *MANIFESTS]


def refused_wrongly(told: Iterator[tuple[Bad, str]]) -> dict[str, str]:
    """Fault → message, for each message that doesn't name its fault."""
    return {bad.fault: message[:300] for bad, message in told if bad.words not in message}
