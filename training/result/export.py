"""Exports as a command: `python -m training.result.export merge`. Imports torch only when needed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from training.process.environment import prepare_environment

_EPILOG = """\
example: python -m training.result.export merge --base-model ./my-base --adapter ./my-adapter --output ./my-merged-model

The merged model is compared with the base model and adapter before it is saved. Exit codes: 0, success;
2, these folders can't be merged; 1, the merged model answers differently and was discarded."""


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
        f"Saved the merged model to {options.output} in {parity.dtype}. It differs from the base model with the "
        f"adapter by {parity.divergence:.2g} nats per token; without the adapter, the base model differs by "
        f"{parity.effect:.2g}."
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.result.export",
        description="Export trained adapters to other formats.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command = parser.add_subparsers(required=True, metavar="merge").add_parser(
        "merge", help="merge an adapter into its base model", description="Merge an adapter into its base model."
    )
    command.add_argument(
        "--base-model", type=Path, required=True, metavar="DIR", help="base model; must not be quantized"
    )
    command.add_argument("--adapter", type=Path, required=True, metavar="DIR", help="LoRA adapter trained on it")
    command.add_argument("--output", type=Path, required=True, metavar="DIR", help="output folder")
    command.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="data type of the merged weights; auto: same as the base model",
    )
    return parser


def _fail(error: object, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
