"""Engine limits derived from the adapters at hand where no setting gives them: enough, and no more.

Why no more: room for a larger rank and for more adapters per batch costs time and memory in every answer.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from adapter_format.files import CONFIG_FILE
from serving.adapters.adapter import Adapter, read_json
from serving.adapters.config import largest_rank
from serving.engines.vllm.arguments import ALLOWED_LORA_RANKS
from serving.errors import AdapterError

LEAST_RANK = 32
"""Fits the adapters of the demo and of most trainings, so that a first job needs no restart."""
LEAST_LORAS = 4
MOST_LORAS = 8
"""Most adapters per batch without a setting; more wait for their turn, which is slower but never refused."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LimitSettings:
    """The limits in the settings; None: derived from the adapters."""

    max_lora_rank: int | None = None
    max_loras: int | None = None
    max_cpu_loras: int = 32

    def derive(self, adapters: Sequence[Adapter]) -> tuple[int, int, int]:
        """Return (max_lora_rank, max_loras, max_cpu_loras) for an engine with these adapters."""
        loras = self.max_loras or min(max(len(adapters), LEAST_LORAS), MOST_LORAS)
        return self.max_lora_rank or _smallest_rank(adapters), loras, max(self.max_cpu_loras, loras)


def _smallest_rank(adapters: Sequence[Adapter]) -> int:
    """Return the smallest rank that vLLM accepts and all of them fit into, at least `LEAST_RANK`."""
    wanted = max([LEAST_RANK, *(rank for adapter in adapters if (rank := _rank(adapter)) <= ALLOWED_LORA_RANKS[-1])])
    return next(rank for rank in ALLOWED_LORA_RANKS if rank >= wanted)


def _rank(adapter: Adapter) -> int:
    """Return the adapter's largest rank in any layer; 0 where its configuration makes no sense."""
    try:
        return largest_rank(read_json(adapter.path / CONFIG_FILE))
    except (AdapterError, TypeError, ValueError, AttributeError) as error:
        logger.warning("Can't read the rank of %s, so engines aren't sized for it: %s", adapter.id, error)
        return 0
