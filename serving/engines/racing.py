"""Waiting for whichever comes first. It refuses to know what is waited for."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")


async def first_of(*works: Coroutine[None, None, T]) -> T:
    """What the first of these returns that ends, or raises what it raises; the others are cancelled before.

    Of two that end at once, the one named first counts.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task.done()).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
