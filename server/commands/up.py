"""`tuneloop up`: serve a base model and every adapter made for it."""

from __future__ import annotations

import asyncio

from server.commands.base_model import open_base_model
from server.commands.console import err, out, start_progress
from server.composition import MountUI, Story, listen, log_to_file, only_server, run_server
from server.services import Services
from server.settings import Settings


def up(settings: Settings, mount_ui: MountUI, story: Story | None = None) -> None:
    """Bring tuneloop up and serve until Ctrl-C, or until the story says it is over.

    Raises:
        StartError, DatabaseError, ServingError: it could not be brought up; nothing is left running.
    """
    with only_server(settings.data_dir), listen(settings.host, settings.port) as listener:
        log_path = log_to_file(settings.data_dir)
        base = open_base_model(settings.model, settings.cache_dir)
        err.print(f"Base model {base.name} from {base.path}. Log: {log_path}")
        asyncio.run(run_server(settings, base, listener, mount_ui, story or serve))


async def serve(services: Services, url: str) -> bool:
    """Start the engine and say where everything is; go on serving."""
    with start_progress("Starting the engine") as on_progress:
        await services.engine.start(on_progress)
    out.print(addresses(services, url))
    return True


def addresses(services: Services, url: str) -> str:
    """Where everything is, for somebody who has just started it."""
    tuned = [adapter.name for adapter in services.registry.adapters()]
    lines = [
        f"tuneloop is ready on {url}",
        *([f"  compare in the browser  {url}/"] if services.settings.ui else []),
        f"  OpenAI base_url         {url}/v1",
        f"  API reference           {url}/docs",
        f"  base model              {services.engine.base.name}",
        *(f"  tuned model             {name}" for name in tuned),
        *([] if tuned else ["  no tuned models yet: make one with `tuneloop train CONFIG.yaml`"]),
        "Stop with Ctrl-C.",
    ]
    return "\n".join(lines)
