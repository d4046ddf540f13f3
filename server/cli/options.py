"""Turns the fields of `Settings` into command-line flags, so that `--help` always matches the settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import typer

from server.settings import ENV_PREFIX, Settings, is_secret, load_settings, name_pairs

CONFIG_FLAG = "settings_file"


def with_settings(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command whose first parameter is a `LoadedSettings`: add a flag for each named setting.

    names: settings to offer as flags; default: all but secrets. The file and the environment can set any of them.
    """
    offered = names or tuple(name for name in Settings.model_fields if not is_secret(name))

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(**arguments: Any) -> None:
            flags = {name: _normalize_value(name, arguments.pop(name)) for name in offered}
            loaded = load_settings(flags, config_file=arguments.pop(CONFIG_FLAG))
            command(loaded, **arguments)

        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        flags = [*(_flag(name) for name in offered), _config_flag()]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature([*own, *flags])  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *flags)}
        return run

    return decorate


def _normalize_value(name: str, value: Any) -> Any:
    if _is_mapping(name):
        value = name_pairs(value or [])
    return None if value in ([], {}) else value


def _is_mapping(name: str) -> bool:
    return Settings.model_fields[name].annotation == dict[str, str]


def _flag(name: str) -> inspect.Parameter:
    info = Settings.model_fields[name]
    dashed = name.replace("_", "-")
    declaration = f"--{dashed}/--no-{dashed}" if info.annotation is bool else f"--{dashed}"
    option = typer.Option(
        None,
        declaration,
        help=f"{info.description} [env: {ENV_PREFIX}{name.upper()}]{_default(name)}",
        show_default=False,
        metavar=None if info.annotation is bool else _metavar(name),
    )
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=_flag_type(name))


def _flag_type(name: str) -> Any:
    annotation = Settings.model_fields[name].annotation
    if annotation is bool:
        return bool | None
    return list[str] | None if annotation == list[str] or _is_mapping(name) else str | None


def _metavar(name: str) -> str:
    """Return what `--help` shows for the value: its choices, or its type."""
    if _is_mapping(name):
        return "<name=value>"
    annotation = Settings.model_fields[name].annotation
    kind = get_args(annotation)[0] if get_origin(annotation) in (Union, UnionType) else annotation  # of `kind | None`
    if get_origin(kind) is Literal:
        return "[" + "|".join(map(str, get_args(kind))) + "]"
    names: dict[Any, str] = {int: "<int>", float: "<float>", Path: "<path>"}  # as typer writes them
    return names.get(kind, "<str>")


def _default(name: str) -> str:
    default = Settings.model_fields[name].get_default(call_default_factory=True)
    return "" if default in (None, [], {}) else f" [default: {_home_relative(default)}]"


def _home_relative(default: Any) -> Any:
    if isinstance(default, Path) and default.is_relative_to(Path.home()):
        return Path("~") / default.relative_to(Path.home())
    return default


def _config_flag() -> inspect.Parameter:
    option = typer.Option(
        None, "--config", help="YAML file with settings, one `name: value` per line.", show_default=False
    )
    return inspect.Parameter(CONFIG_FLAG, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=Path | None)
