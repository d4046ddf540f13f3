"""Exports as a command: `python -m training.result.export merge`. Imports torch only when needed."""

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
    """Run the command line; return the exit code."""
    options = _parser().parse_args(arguments)
    prepare_environment(offline=True)
    from training.model.adapter_dir import AdapterWriteError
    from training.result.merging import ExportError, ParityError, merge

    try:
        parity = merge(options.base_model, options.adapter, options.output, options.dtype)
    except ParityError as error:
        return _fail(error, 1)
    except (ExportError, AdapterWriteError) as error:
        return _fail(error, 2)
    except OSError as error:
        return _fail(f"{error.filename or options.output} can't be written or read: {error.strerror}.", 2)
    print(
        f"{options.output} holds the merged model, in {parity.dtype}. It differs from base and adapter by "
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


def _fail(error: object, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
