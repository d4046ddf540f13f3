"""The gate lets through what is served as it was trained, refuses what isn't, and never trusts a manifest."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from serving import (
    Adapter,
    AdapterError,
    BaseModel,
    EngineError,
    EngineUnavailableError,
    ParityError,
    check_adapter,
    read_adapter,
)
from serving.parity.gate import ParityGate, compare, record
from serving.parity.reference import Reference
from tests.serving.adapters.adapters_on_disk import write_adapter
from tests.serving.conftest import LIMITS

pytestmark = pytest.mark.anyio
PROMPTS = [[(7 * number + place) % 16 for place in range(20)] for number in range(4)]
CONVERSATION = {"messages": [{"role": "user", "content": "Hello"}], "add_generation_prompt": True}
Saying = Callable[[list[int], int], float]
"""(token ids, place) → the log-probability of the token at that place."""


def saying(*seeds: object, weight: float = 1.0, before: Saying | None = None) -> Saying:
    """Log-probabilities that are always the same; those of `before` with something of the seeds' own added."""

    def compute(ids: list[int], place: int) -> float:
        number = int.from_bytes(hashlib.sha256(repr((seeds, ids[: place + 1])).encode()).digest()[:4], "big") / 2**32
        return before(ids, place) - weight * number if before else -1 - 4 * number

    return compute


BASE = saying("base")
TUNED = saying("tuned", weight=2, before=BASE)
OTHER = saying("other", weight=2, before=BASE)


@dataclass
class Answer:
    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    async def read(self) -> bytes:
        return self.body

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self.body


@dataclass
class SpeakingEngine:
    """Answers as vLLM does, with log-probabilities that the test decides."""

    base: BaseModel
    says: dict[str, Saying]
    tokens: list[int] = field(default_factory=lambda: [1, 2, 3])
    limits: Any = LIMITS
    generation: int = 1
    status: int = 200
    asked: list[str] = field(default_factory=list)

    async def load_adapter(self, name: str, path: Path) -> None: ...

    async def unload_adapter(self, name: str) -> None: ...

    @asynccontextmanager
    async def request(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Answer]:
        asked = json.loads(body or b"{}")
        self.asked.append(asked["model"])
        if self.status != 200:
            yield Answer(self.status, b'{"error": {"message": "Out of luck"}}')
        elif path == "/tokenize":
            yield Answer(200, json.dumps({"tokens": self.tokens}).encode())
        else:
            choices = [self._choice(number, ids, asked["model"]) for number, ids in enumerate(asked["prompt"])]
            yield Answer(200, json.dumps({"choices": choices}).encode())

    def _choice(self, number: int, ids: list[int], model: str) -> dict[str, Any]:
        told = [{str(ids[place]): {"logprob": self.says[model](ids, place)}} for place in range(1, len(ids))]
        return {"index": number, "prompt_logprobs": [None, *told]}


def reference_json(base: BaseModel, tuned: Saying = TUNED, plain: Saying = BASE, **changes: Any) -> dict[str, Any]:
    def row(ids: list[int], said: Saying) -> list[float]:
        return [said(ids, place) for place in range(1, len(ids))]

    return {
        "format": 1,
        "base_model_sha256": base.sha256,
        "dtype": "float32",
        "made_on": "2026-01-02",
        "template_tells_the_date": False,
        "conversations": [CONVERSATION | {"token_ids": [1, 2, 3]}],
        "prompts": [{"token_ids": ids, "tuned": row(ids, tuned), "base": row(ids, plain)} for ids in PROMPTS],
    } | changes


def adapter_with(place: Path, base: BaseModel, reference: object) -> Adapter:
    return read_adapter(write_adapter(place / "adapters", base, manifest={"parity_reference": reference}))


def engine_for(adapter: Adapter, base: BaseModel, tuned: Saying = TUNED, plain: Saying = BASE) -> SpeakingEngine:
    return SpeakingEngine(base, {base.name: plain, adapter.name: tuned})


@pytest.fixture
def anyio_backend() -> str:
    """The engines' event loop is asyncio's."""
    return "asyncio"


@pytest.fixture
def adapter(base: BaseModel, tmp_path: Path) -> Adapter:
    (tmp_path / "adapters").mkdir()
    return adapter_with(tmp_path, base, reference_json(base))


def parity_of(adapter: Adapter) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((adapter.path / "manifest.json").read_text())["parity"]
    return found


async def test_what_is_served_as_trained_passes_and_its_manifest_says_so(adapter: Adapter, base: BaseModel) -> None:
    before = {file.name: file.read_bytes() for file in adapter.path.iterdir()}
    await ParityGate(dtype_of=lambda _: "float32").check(adapter, engine_for(adapter, base))
    after = {file.name: file.read_bytes() for file in adapter.path.iterdir()}
    assert {name for name in after if after[name] != before.get(name)} == {"manifest.json"}
    parity = parity_of(adapter)
    assert (parity["passed"], parity["reasons"], parity["token_ids_equal"]) == (True, [], True)
    assert parity["tuned"]["max"] < 1e-4 < parity["tuned_vs_base"]["mean"]
    assert parity["share"] == pytest.approx(1, abs=1e-3)
    assert json.loads(before["manifest.json"]) == {
        key: value for key, value in json.loads(after["manifest.json"]).items() if key != "parity"
    }
    check_adapter(adapter.path, base, LIMITS)
    assert [path.name for path in adapter.path.parent.iterdir()] == [adapter.id]


@pytest.mark.parametrize(
    ("tuned", "plain", "word"),
    [
        (BASE, BASE, "more like the base model"),
        (OTHER, BASE, "different weights than were trained"),
        (saying("x", weight=2, before=saying("another base")), saying("another base"), "For the base model itself"),
        (
            lambda ids, place: BASE(ids, place) + 0.5 * (TUNED(ids, place) - BASE(ids, place)),
            BASE,
            "0.50 of the adapter's effect",
        ),
    ],
    ids=["zeroed", "swapped", "another base", "half of it"],
)
async def test_what_is_served_otherwise_is_refused_with_its_reason(
    adapter: Adapter, base: BaseModel, tuned: Saying, plain: Saying, word: str
) -> None:
    with pytest.raises(ParityError, match=word):
        await ParityGate(dtype_of=lambda _: "float32").check(adapter, engine_for(adapter, base, tuned, plain))
    parity = parity_of(adapter)
    assert parity["passed"] is False
    assert any(word in reason for reason in parity["reasons"])


async def test_weak_adapter_that_isnt_served_is_noticed_below_the_bound(base: BaseModel, tmp_path: Path) -> None:
    weak = saying("weak", weight=0.02, before=BASE)
    (tmp_path / "adapters").mkdir()
    adapter = adapter_with(tmp_path, base, reference_json(base, weak))
    await ParityGate().check(adapter, engine_for(adapter, base, weak))
    with pytest.raises(ParityError, match="more like the base model"):
        await ParityGate().check(adapter, engine_for(adapter, base, BASE))


async def test_adapter_that_changes_nothing_is_refused(base: BaseModel, tmp_path: Path) -> None:
    (tmp_path / "adapters").mkdir()
    adapter = adapter_with(tmp_path, base, reference_json(base, BASE))
    with pytest.raises(ParityError, match=r"no effect.*learning_rate"):
        await ParityGate().check(adapter, engine_for(adapter, base, BASE))


async def test_other_token_ids_are_refused_and_the_place_is_named(adapter: Adapter, base: BaseModel) -> None:
    engine = engine_for(adapter, base)
    engine.tokens = [1, 2, 9, 3]
    with pytest.raises(ParityError, match=r"conversation 1 into 4 tokens, but training into 3; .* from token 3 on"):
        await ParityGate().check(adapter, engine)
    assert parity_of(adapter)["token_ids_equal"] is False


async def test_token_ids_with_the_date_in_them_are_compared_on_that_day_alone(base: BaseModel) -> None:
    engine = SpeakingEngine(base, {base.name: BASE, "a": TUNED}, tokens=[1, 2, 4])
    dated = Reference.from_json(reference_json(base, template_tells_the_date=True))
    assert (await compare(engine, "a", dated)).token_ids_equal is None
    today = await compare(engine, "a", replace(dated, made_on=time.strftime("%Y-%m-%d")))
    assert (today.passed, today.token_ids_equal) == (False, False)


async def test_reference_made_on_other_weights_is_refused(base: BaseModel, tmp_path: Path) -> None:
    (tmp_path / "adapters").mkdir()
    adapter = adapter_with(tmp_path, base, reference_json(base, base_model_sha256="f" * 64))
    with pytest.raises(ParityError, match="computed with different weights"):
        await ParityGate().check(adapter, engine_for(adapter, base))


@pytest.mark.parametrize(("dtype", "passes"), [("bfloat16", True), (None, True), ("float32", False)])
async def test_rounding_is_borne_as_far_as_the_engines_dtype_explains_it(
    adapter: Adapter, base: BaseModel, dtype: str | None, passes: bool
) -> None:
    def rounded(said: Saying) -> Saying:
        return lambda ids, place: min(0.0, said(ids, place) + 0.06 * math.sin(sum(ids[:place]) + place))

    engine = engine_for(adapter, base, rounded(TUNED), rounded(BASE))
    result = await compare(engine, adapter.name, Reference.from_json(reference_json(base)), dtype)
    assert result.passed is passes, result.reasons


async def test_single_token_far_off_decides_nothing_in_16_bit(adapter: Adapter, base: BaseModel) -> None:
    def slipping(ids: list[int], place: int) -> float:
        return TUNED(ids, place) - (30 if (ids[0], place) == (7, 12) else 0)

    reference = Reference.from_json(reference_json(base))
    result = await compare(engine_for(adapter, base, slipping), adapter.name, reference, "bfloat16")
    assert result.passed, result.reasons
    assert result.tuned is not None
    assert result.tuned.max == pytest.approx(30, abs=0.01)


async def test_engine_that_refuses_to_answer_is_a_reason_and_one_in_trouble_is_not(
    adapter: Adapter, base: BaseModel
) -> None:
    engine = engine_for(adapter, base)
    engine.status = 500
    with pytest.raises(EngineUnavailableError):
        await ParityGate().check(adapter, engine)
    assert "parity" not in read_adapter(adapter.path).manifest
    engine.status = 400
    with pytest.raises(ParityError, match="Out of luck"):
        await ParityGate().check(adapter, engine)


async def test_restart_of_the_engine_while_it_is_judged_is_no_verdict(base: BaseModel, tmp_path: Path) -> None:
    (tmp_path / "adapters").mkdir()
    adapter = adapter_with(tmp_path, base, None)
    engine = engine_for(adapter, base)

    async def make(asked: Adapter, made_for: BaseModel) -> Reference:
        engine.generation, engine.status = 2, 404  # the new engine doesn't know the adapter
        return Reference.from_json(reference_json(base))

    with pytest.raises(EngineUnavailableError, match="was restarted while"):
        await ParityGate(make).check(adapter, engine)
    assert "parity" not in json.loads((adapter.path / "manifest.json").read_text())


async def test_adapter_without_reference_gets_one_made_or_says_what_to_do(base: BaseModel, tmp_path: Path) -> None:
    (tmp_path / "adapters").mkdir()
    adapter = adapter_with(tmp_path, base, None)
    with pytest.raises(AdapterError, match="set parity_check to false") as refused:
        await ParityGate().check(adapter, engine_for(adapter, base))
    assert not isinstance(refused.value, ParityError)

    async def make(asked: Adapter, made_for: BaseModel) -> Reference:
        assert (asked, made_for) == (adapter, base)
        return Reference.from_json(reference_json(base))

    await ParityGate(make).check(adapter, engine_for(adapter, base))
    assert parity_of(adapter)["passed"] is True


HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "a list": lambda good: [good],
    "a text": lambda good: "passed",
    "another format": lambda good: good | {"format": 2},
    "no format": lambda good: good | {"format": None},
    "an unknown dtype": lambda good: good | {"dtype": "int4"},
    "a dtype that can't be looked up": lambda good: good | {"dtype": ["float32"]},
    "no prompts": lambda good: good | {"prompts": []},
    "prompts that are a number": lambda good: good | {"prompts": 5},
    "too few tokens": lambda good: good | {"prompts": good["prompts"][:1]},
    "too many prompts": lambda good: good | {"prompts": good["prompts"] * 99},
    "too many tokens": lambda good: good | {"prompts": [{"token_ids": [1] * 9999, "tuned": [], "base": []}]},
    "a row too short": lambda good: changed_prompt(good, "tuned", lambda row: row[1:]),
    "NaN": lambda good: changed_prompt(good, "tuned", lambda row: [math.nan, *row[1:]]),
    "minus infinity": lambda good: changed_prompt(good, "base", lambda row: [-math.inf, *row[1:]]),
    "a probability above 1": lambda good: changed_prompt(good, "base", lambda row: [3.0, *row[1:]]),
    "a number too large for a float": lambda good: changed_prompt(good, "base", lambda row: [10**400, *row[1:]]),
    "a text for a number": lambda good: changed_prompt(good, "tuned", lambda row: ["-1", *row[1:]]),
    "truth for a number": lambda good: changed_prompt(good, "token_ids", lambda row: [True, *row[1:]]),
    "a negative token": lambda good: changed_prompt(good, "token_ids", lambda row: [-1, *row[1:]]),
    "a huge token": lambda good: changed_prompt(good, "token_ids", lambda row: [2**70, *row[1:]]),
    "a conversation that is null": lambda good: good | {"conversations": [None]},
    "a message that is a text": lambda good: good | {"conversations": [CONVERSATION | {"messages": ["hi"]}]},
    "a message without a role": lambda good: good | {"conversations": [CONVERSATION | {"messages": [{"content": ""}]}]},
    "a novel": lambda good: (
        good | {"conversations": [CONVERSATION | {"messages": [{"role": "user", "content": "x" * 10**6}]}]}
    ),
    "no hash": lambda good: good | {"base_model_sha256": None},
}


def changed_prompt(good: dict[str, Any], key: str, change: Callable[[list[Any]], list[Any]]) -> dict[str, Any]:
    changed = copy.deepcopy(good)
    changed["prompts"][0][key] = change(changed["prompts"][0][key])
    return changed


@pytest.mark.parametrize("how", HOSTILE)
async def test_hostile_reference_is_an_adapter_error_before_the_engine_is_asked(
    base: BaseModel, tmp_path: Path, how: str
) -> None:
    (tmp_path / "adapters").mkdir()
    adapter = adapter_with(tmp_path, base, HOSTILE[how](reference_json(base)))
    engine = engine_for(adapter, base)
    with pytest.raises(AdapterError, match=r"parity reference can't be used: .+\. Import the adapter again"):
        await ParityGate().check(adapter, engine)
    assert engine.asked == []


async def check(place: Path, base: BaseModel, tuned: Saying) -> Adapter:
    adapter = adapter_with(place, base, reference_json(base, tuned))
    await ParityGate().check(adapter, engine_for(adapter, base, tuned))
    return read_adapter(adapter.path)


async def test_canary_is_quiet_where_all_is_as_it_was(adapter: Adapter, base: BaseModel, tmp_path: Path) -> None:
    good, other = await check(tmp_path, base, TUNED), await check(tmp_path, base, OTHER)
    engine = SpeakingEngine(base, {base.name: BASE, good.name: TUNED, other.name: OTHER})
    assert await ParityGate().run_canary(engine, [good, adapter, other]) == {}
    assert len(engine.asked) <= 2 * 2
    assert adapter.name not in engine.asked, "what was never checked has nothing to be held against"


async def test_canary_names_the_adapters_that_answer_otherwise(base: BaseModel, tmp_path: Path) -> None:
    (tmp_path / "adapters").mkdir()
    one, two, three = [await check(tmp_path, base, said) for said in (TUNED, OTHER, saying("c", before=BASE))]
    engine = SpeakingEngine(
        base, {base.name: BASE, one.name: BASE, two.name: TUNED, three.name: saying("c", before=BASE)}
    )
    faults = await ParityGate().run_canary(engine, [one, two, three])
    assert faults.keys() == {one.name, two.name}
    assert "more like the base model" in faults[one.name]


async def test_canary_distrusts_an_engine_whose_base_answers_otherwise(base: BaseModel, tmp_path: Path) -> None:
    (tmp_path / "adapters").mkdir()
    one = await check(tmp_path, base, TUNED)
    engine = SpeakingEngine(base, {base.name: saying("asleep"), one.name: TUNED})
    with pytest.raises(EngineError, match="base model answers differently"):
        await ParityGate().run_canary(engine, [one])


async def test_canary_survives_a_damaged_note_of_what_was_served(base: BaseModel, tmp_path: Path) -> None:
    (tmp_path / "adapters").mkdir()
    one = await check(tmp_path, base, TUNED)
    one.manifest["parity"]["served"] = [{"token_ids": [1, "2"]}]
    assert "token_ids" in (await ParityGate().run_canary(engine_for(one, base), [one]))[one.name]


async def test_record_leaves_the_manifest_whole_where_it_cant_be_written(
    adapter: Adapter, base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = await compare(engine_for(adapter, base), adapter.name, Reference.from_json(reference_json(base)))
    before = (adapter.path / "manifest.json").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        record(adapter.path, result)
    assert (adapter.path / "manifest.json").read_bytes() == before
    assert [path.name for path in adapter.path.parent.iterdir()] == [adapter.id]
