"""Set before these tests import torch: beside a busy process, spinning threads would make them ten times slower."""

from training.process.environment import prepare_environment

prepare_environment(offline=True)
