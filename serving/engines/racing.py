"""Waiting for the first of several coroutines."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")


async def first_of(*works: Coroutine[None, None, T]) -> T:
    """Return the result of the first coroutine that ends, or raise its exception; the others are cancelled.

    If two end at once, the one named first wins.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task.done()).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
