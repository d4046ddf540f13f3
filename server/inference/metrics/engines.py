"""Passes on the metrics that engines publish, each sample labelled with its engine.

The text is passed on without interpreting the metrics.
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
"""An engine that doesn't answer within this is left out, so as not to delay the others' metrics."""
MAX_BYTES = 4 * 2**20
"""A larger exposition is left out, and not read to its end."""
PASSED_ON = {"tuneloop-passed-on": "1"}
"""Marks a request by tuneloop: a tuneloop that receives it answers with its own metrics only. Otherwise two servers
that are each other's engines would ask each other forever."""
_FAMILY = re.compile(rb"^(?=# HELP )", re.MULTILINE)
_COMMENT = re.compile(rb"^#.*\n", re.MULTILINE)
_WITH_LABELS = re.compile(rb"^([a-zA-Z_:][a-zA-Z0-9_:]*)\{", re.MULTILINE)
_WITHOUT_LABELS = re.compile(rb"^([a-zA-Z_:][a-zA-Z0-9_:]*) ", re.MULTILINE)
_SAME_LABEL = re.compile(rb'([{,])engine="')
"""Can't match inside a label's value, where quotation marks are escaped."""
log = logging.getLogger(__name__)


async def fetch_engine_metrics(replicas: Sequence[Replica]) -> bytes:
    """Return the metrics of all engines that answer now, grouped by family."""
    texts = await asyncio.gather(*(_fetch_metrics(replica) for replica in replicas))
    return merge_expositions({replica.id: text for replica, text in zip(replicas, texts, strict=True) if text})


async def _fetch_metrics(replica: Replica) -> bytes:
    """Return the engine's exposition; empty if it is away, slow, or has none."""
    if replica.engine.state is not EngineState.READY:
        return b""
    try:
        async with asyncio.timeout(TIMEOUT_S), replica.engine.request("GET", "/metrics", headers=PASSED_ON) as answer:
            content = await _read_limited(answer)
    except (EngineError, TimeoutError) as error:
        log.info("no metrics of %s: %r", replica.id, error)
        return b""
    is_text = answer.headers.get("content-type", "").startswith("text/plain")
    return content if answer.status == 200 and is_text and len(content) <= MAX_BYTES else b""


async def _read_limited(answer: EngineResponse) -> bytes:
    """Return the body, or just over MAX_BYTES of it: the engine may be someone else's, and the body endless."""
    content = bytearray()
    async for chunk in answer.chunks():
        content += chunk
        if len(content) > MAX_BYTES:
            break
    return bytes(content)


def merge_expositions(expositions: Mapping[str, bytes]) -> bytes:
    """Merge expositions by engine id into one: each family once, with the samples of every engine that has it."""
    families: dict[bytes, list[bytes]] = {}
    for engine, exposition in expositions.items():
        for family in _FAMILY.split(exposition):
            head = b"".join(_COMMENT.findall(family))
            samples = _COMMENT.sub(b"", family)
            if samples.strip():
                families.setdefault(head, []).append(_add_engine_label(samples, engine))
    return b"".join(head + b"".join(samples) for head, samples in families.items())


def _add_engine_label(samples: bytes, engine: str) -> bytes:
    """Add the engine's label to each sample; an existing label of that name is renamed, as Prometheus does."""
    label = b'{engine="%s"' % engine.encode()
    samples = _SAME_LABEL.sub(rb'\1exported_engine="', samples)
    samples = _WITH_LABELS.sub(lambda match: match[1] + label + b",", samples)
    return _WITHOUT_LABELS.sub(lambda match: match[1] + label + b"} ", samples)
