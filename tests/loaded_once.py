"""What the process loads that `tests.forked` forks, before its first fork."""

from importlib import import_module

from training.process.environment import prepare_environment

prepare_environment(offline=True)
OURS = (
    "server.cli.main",
    "tests.server.jobs.serve",
    "server.files.check",
    "training.inspection.answer",
    "training.inspection.forecast.run_report",
    "training.inspection.show.preview",
    "training.data.cleaning.clean",
    "training.demo.build",
    "training.result.parity",
    "training.learning.preference",
    "training.record.tracking",
)
for _module in OURS:
    import_module(_module)
