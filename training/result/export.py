"""Exports as a command: `python -m training.result.export merge`. Imports torch only when there is something to do."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from training.process.environment import prepare_environment

_EPILOG = """\
example: python -m training.result.export merge --base-model ./my-base --adapter ./my-adapter --output ./my-merged-model

The merged model is read back and compared with base and adapter before it's put in place. Exit code 0: it is there;
2: it can't be made of these folders; 1: it was made, but answers differently, so it was thrown away."""


def main(arguments: list[str] | None = None) -> int:
    """Does what the command line says; returns the exit code."""
    asked = _parser().parse_args(arguments)
    prepare_environment(offline=True)
    from training.model.adapter_dir import AdapterWriteError
    from training.result.merging import ExportError, ParityError, merge

    try:
        parity = merge(asked.base_model, asked.adapter, asked.output, asked.dtype)
    except ParityError as error:
        return _failed(error, 1)
    except (ExportError, AdapterWriteError) as error:
        return _failed(error, 2)
    except OSError as error:
        return _failed(f"{error.filename or asked.output} can't be written or read: {error.strerror}.", 2)
    print(
        f"{asked.output} holds the merged model, in {parity.dtype}. It differs from base and adapter by "
        f"{parity.divergence:.2g} nats per token; the bare base differs by {parity.effect:.2g}."
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.result.export",
        description="Makes other forms of what was trained.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command = parser.add_subparsers(required=True, metavar="merge").add_parser(
        "merge", help="one whole model out of a base and an adapter", description="Merges an adapter into its base."
    )
    command.add_argument("--base-model", type=Path, required=True, metavar="DIR", help="the base, not quantised")
    command.add_argument("--adapter", type=Path, required=True, metavar="DIR", help="a LoRA adapter made for it")
    command.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to make")
    command.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="of the merged weights; auto: what the base is stored in",
    )
    return parser


def _failed(error: object, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
