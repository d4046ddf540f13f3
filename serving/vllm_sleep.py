"""vLLM's sleep: its weights go into the machine's memory, its cache is dropped, and a GPU is free for something else.

It refuses to know for whom. The endpoints exist in vLLM's development mode alone, on our private socket; they were
read in vLLM 0.32 (entrypoints/serve/dev/sleep), and a processor refuses them. After a sleep, adapters have been wrong
without a word (https://github.com/vllm-project/vllm/issues/53888): whoever wakes it must check what it says.
"""

import asyncio
import logging

from serving.client import VLLMClient
from serving.errors import EngineStartError, EngineUnavailableError

_TIMEOUT_S = 300.0
"""For moving all weights from the GPU or back; some GB/s."""

logger = logging.getLogger(__name__)


async def fall_asleep(client: VLLMClient) -> bool:
    """Whether vLLM sleeps now; where not, it must be stopped to free the accelerator. What was in flight is aborted."""
    try:
        await _post(client, "/sleep?level=1")
    except (EngineStartError, EngineUnavailableError) as error:
        logger.error("The engine doesn't fall asleep, and is stopped instead: %s", error)
        return False
    return True


async def wake_up(client: VLLMClient) -> None:
    """Returns when the weights are back. Raises: EngineStartError, EngineUnavailableError."""
    await _post(client, "/wake_up")


async def _post(client: VLLMClient, path: str) -> None:
    try:
        async with asyncio.timeout(_TIMEOUT_S), client.request("POST", path) as response:
            said = await response.read()
            if response.status != 200:
                raise EngineStartError(f"vLLM answered {response.status} to {path}: {said.decode(errors='replace')}")
    except TimeoutError as error:
        raise EngineStartError(f"vLLM needed more than {_TIMEOUT_S:.0f} s for {path}.") from error
