"""`python -m training.demo`: the command line of the embedded base model.

The work is in `build`, which imports torch and is loaded once the environment is set.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tqdm import tqdm

from training.demo.examples import NAME, write_examples
from training.process.environment import prepare_environment

_DESCRIPTION = """\
Build the embedded base model: a chat model with three million parameters that knows a few hundred facts.
It is trained from scratch on this machine, without any download, in about a minute on two cores."""
_EXAMPLES = f"""\
examples:
  python -m training.demo models/{NAME}       build it there (the folder's name becomes the model's name)
  python -m training.demo --write-examples data/     write the example data for a first fine-tune"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code: 0 done, 2 a folder that can't be used, 130 interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m training.demo",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", metavar="DIR", type=Path, help="output folder; must be empty or not exist yet")
    parser.add_argument("--write-examples", action="store_true", help="only write the example data to DIR")
    parser.add_argument(
        "--cache",
        action="store_true",
        help="use DIR as a cache by the recipe's hash, build the model only if needed, and print its folder",
    )
    parser.add_argument("--seed", metavar="N", type=int, help="random seed; different seeds give different weights")
    options = parser.parse_args(arguments)
    try:
        if options.write_examples:
            return _write(options.directory)
        return _build(options.directory, options.cache, options.seed)
    except KeyboardInterrupt:
        print("stopped; nothing was left behind", file=sys.stderr)
        return 130


def _write(directory: Path) -> int:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_examples(directory)
    except OSError as error:
        return _print_error(f"Can't write the example data to {directory}: {error.strerror}. Choose another folder.")
    return 0


def _build(directory: Path, cached: bool, seed: int | None) -> int:
    prepare_environment(offline=True)
    from training.demo.build import DemoModelError, Recipe, build_demo_model, cached_demo_model

    started = time.monotonic()
    try:
        with _Progress() as progress:
            build = cached_demo_model if cached else build_demo_model
            folder = build(directory, recipe=Recipe() if seed is None else Recipe(seed=seed), on_progress=progress)
    except DemoModelError as error:
        return _print_error(str(error))
    if not cached:
        print(f"the base model is ready after {time.monotonic() - started:.0f} s, in:", file=sys.stderr)
    print(folder)
    return 0


def _print_error(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


class _Progress:
    """A progress bar on a terminal; elsewhere a line every five seconds."""

    def __init__(self) -> None:
        self._bar = tqdm(
            desc="training the base model",
            unit="step",
            disable=not sys.stderr.isatty(),
            bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} steps, {remaining} left{postfix}",
        )
        self._started = self._shown = time.monotonic()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def __call__(self, step: int, total_steps: int, loss: float) -> None:
        self._bar.total = total_steps
        self._bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
        self._bar.update()
        now = time.monotonic()
        if self._bar.disable and (now - self._shown >= 5 or step == total_steps):
            self._shown = now
            left = (now - self._started) / step * (total_steps - step)
            print(
                f"training the base model: step {step}/{total_steps}, loss {loss:.3f}, {left:.0f} s left",
                file=sys.stderr,
            )


if __name__ == "__main__":
    sys.exit(main())
