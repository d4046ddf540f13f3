"""What the process loads that `tests.forked` forks, before its first fork."""

from importlib import import_module

from training.environment import prepare_environment

prepare_environment(offline=True)
OURS = (
    "server.cli",
    "tests.server.jobs.serve",
    "training.demo.build",
    "training.parity",
    "training.preference",
    "training.tracking",
)
for _module in OURS:
    import_module(_module)
