"""`tuneloop up`: serves a base model and all its adapters."""

from __future__ import annotations

import uvloop

from server.app.data_dir import lock_data_dir
from server.app.run import MountUI, Story, listen, log_to_file, run_server
from server.app.services import Services
from server.cli.base_model import open_base_model
from server.cli.console import err, out, start_progress
from server.settings import Settings


def up(settings: Settings, mount_ui: MountUI, story: Story | None = None) -> None:
    """Start tuneloop and serve until Ctrl-C, or until `story` returns False.

    Raises:
        StartError, DatabaseError, ServingError: the start failed; nothing is left running.
    """
    with lock_data_dir(settings.data_dir), listen(settings.host, settings.port) as listener:
        log_path = log_to_file(settings.data_dir)
        bases = [open_base_model(model, settings.cache_dir) for model in (settings.model, *settings.more_models)]
        for base in bases:
            err.print(f"Base model {base.name} from {base.path}. Log: {log_path}")
        uvloop.run(run_server(settings, bases, listener, mount_ui, story or serve))


async def serve(services: Services, url: str) -> bool:
    """Start the engines one after another, print the URLs and models, and keep serving."""
    for replica in services.fleet.local:
        name = "the engine" if len(services.fleet.local) == 1 else f"{replica.id} for {replica.engine.base.name}"
        with start_progress(f"Starting {name}") as on_progress:
            await replica.engine.start(on_progress)
    out.print(addresses(services, url))
    return True


def addresses(services: Services, url: str) -> str:
    """Return the URLs and models to print after the start."""
    tuned = [adapter.name for adapter in services.registry.adapters()]
    lines = [
        f"tuneloop is ready at {url}",
        *([f"  web pages               {url}/"] if services.settings.ui else []),
        f"  OpenAI base_url         {url}/v1",
        f"  API reference           {url}/docs",
        *(f"  base model              {pool.base.name}" for pool in services.registry.pools),
        *(f"  remote engine           {replica.id}, {replica.engine.state}" for replica in services.fleet.remote),
        *(f"  tuned model             {name}" for name in tuned),
        *([] if tuned else ["  no tuned models yet; train one with `tuneloop train CONFIG.yaml`"]),
        "Press Ctrl-C to stop.",
    ]
    return "\n".join(lines)
