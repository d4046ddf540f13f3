"""What the process loads that `tests.forked` forks, before its first fork."""

from importlib import import_module

from training.environment import prepare_environment

prepare_environment(offline=True)
for _module in ("server.cli", "training.demo.build", "training.parity", "training.preference", "training.tracking"):
    import_module(_module)
