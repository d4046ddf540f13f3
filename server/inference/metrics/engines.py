"""Passes on the metrics that engines publish themselves, each sample with a label that says whose it is.

Text in, text out: it refuses to know what the metrics mean.
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence

from serving import EngineError, EngineResponse, EngineState
from serving.registry.pool import Replica

TIMEOUT_S = 2.0
"""An engine that doesn't answer within this is left out: the others' figures are wanted now."""
MAX_BYTES = 4 * 2**20
"""An exposition that is larger is left out, and not read to its end."""
PASSED_ON = {"tuneloop-passed-on": "1"}
"""Says that a tuneloop asks: one that is asked so tells its own figures alone. Else two that are each other's engines
would ask for ever."""
_FAMILY = re.compile(rb"^(?=# HELP )", re.MULTILINE)
_COMMENT = re.compile(rb"^#.*\n", re.MULTILINE)
_WITH_LABELS = re.compile(rb"^([a-zA-Z_:][a-zA-Z0-9_:]*)\{", re.MULTILINE)
_WITHOUT_LABELS = re.compile(rb"^([a-zA-Z_:][a-zA-Z0-9_:]*) ", re.MULTILINE)
_SAME_LABEL = re.compile(rb'([{,])engine="')
"""Not found inside a label's value: a quotation mark is escaped there."""
log = logging.getLogger(__name__)


async def engines_own_metrics(replicas: Sequence[Replica]) -> bytes:
    """What the engines that answer now publish, family by family."""
    told = await asyncio.gather(*(_told(replica) for replica in replicas))
    return merged({replica.id: text for replica, text in zip(replicas, told, strict=True) if text})


async def _told(replica: Replica) -> bytes:
    """The engine's exposition; nothing where it is away, slow, or has none."""
    if replica.engine.state is not EngineState.READY:
        return b""
    try:
        async with asyncio.timeout(TIMEOUT_S), replica.engine.request("GET", "/metrics", headers=PASSED_ON) as answer:
            content = await _beginning(answer)
    except (EngineError, TimeoutError) as error:
        log.info("no metrics of %s: %r", replica.id, error)
        return b""
    is_text = answer.headers.get("content-type", "").startswith("text/plain")
    return content if answer.status == 200 and is_text and len(content) <= MAX_BYTES else b""


async def _beginning(answer: EngineResponse) -> bytes:
    """The body; of one that is too large, only so much that this shows. It may be somebody else's, and endless."""
    content = bytearray()
    async for chunk in answer.chunks():
        content += chunk
        if len(content) > MAX_BYTES:
            break
    return bytes(content)


def merged(expositions: Mapping[str, bytes]) -> bytes:
    """Engine's id → exposition, as one: each family once, with the samples of every engine that has it."""
    families: dict[bytes, list[bytes]] = {}
    for engine, exposition in expositions.items():
        for family in _FAMILY.split(exposition):
            head = b"".join(_COMMENT.findall(family))
            samples = _COMMENT.sub(b"", family)
            if samples.strip():
                families.setdefault(head, []).append(_labelled(samples, engine))
    return b"".join(head + b"".join(samples) for head, samples in families.items())


def _labelled(samples: bytes, engine: str) -> bytes:
    """The samples, each with the engine's label; one that vLLM calls so itself is renamed, as Prometheus does."""
    label = b'{engine="%s"' % engine.encode()
    samples = _SAME_LABEL.sub(rb'\1exported_engine="', samples)
    samples = _WITH_LABELS.sub(lambda found: found[1] + label + b",", samples)
    return _WITHOUT_LABELS.sub(lambda found: found[1] + label + b"} ", samples)
