"""All settings of a running tuneloop, each with type, unit, default, description, and the source of its value.

Settings are read once at start and passed down. Later sources override earlier ones: default, file (`tuneloop.yaml`),
environment (`TUNELOOP_*`), flag. `--help`, `tuneloop settings` and docs/settings.md come from the fields below.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, ValidationError, field_validator

ENV_PREFIX = "TUNELOOP_"
DEVICE_NUMBERS = r"^\d{1,4}(,\d{1,4})*$"
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})


def default_data_dir() -> Path:
    """Return `$XDG_DATA_HOME/tuneloop`, or `~/.local/share/tuneloop`."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "tuneloop"


def default_cache_dir() -> Path:
    """Return `$XDG_CACHE_HOME/tuneloop`, or `~/.cache/tuneloop`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tuneloop"


class SettingsError(Exception):
    """A setting is unknown or its value invalid. The message lists every error with its source."""


class Settings(BaseModel):
    """All settings; frozen, built by `load_settings`."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str | None = Field(
        None, description="Base model: a hub id or a local folder. Unset: the embedded demo model, built on first use."
    )
    data_dir: Path = Field(
        default_factory=default_data_dir, description="Folder for the database, runs, adapters and logs."
    )
    cache_dir: Path = Field(
        default_factory=default_cache_dir, description="Folder for files that can be rebuilt, such as the demo base."
    )
    host: str = Field(
        "127.0.0.1", description="Address to listen on. Any address other than loopback requires an API key."
    )
    port: int = Field(8000, ge=0, le=65535, description="TCP port of the API and the pages. 0 picks a free port.")
    allowed_hosts: list[str] = Field(
        default_factory=list,
        description="Host names under which browsers may reach a keyless server, in addition to the loopback names.",
    )
    organization: str = Field(
        "personal",
        pattern=r"^[a-z0-9][a-z0-9-]{0,31}$",
        description="The {org} part of ft:{base}:{org}:{suffix}:{id}. Lower-case letters, digits and hyphens.",
    )
    database_url: str | None = Field(
        None, description="SQLAlchemy URL of the database. Unset: SQLite in the data directory."
    )
    ui: bool = Field(True, description="Serve the web pages on `/`.")
    max_body_bytes: int = Field(
        8 * 2**20, ge=1024, description="Maximum size of a JSON request body, in bytes; larger ones get a 413."
    )
    max_adapters: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Adapters per batch (vLLM's max_loras); each takes device memory. Unset: as many as "
        "there are, 4 to 8.",
    )
    max_cpu_adapters: int = Field(
        32, ge=1, le=4096, description="Maximum adapters in host memory (vLLM's max_cpu_loras), at least max_adapters."
    )
    max_lora_rank: Literal[1, 8, 16, 32, 64, 128, 256, 320, 512] | None = Field(
        None,
        description="Maximum adapter rank of the engine; more than needed costs speed. Unset: as the adapters need, at "
        "least 32.",
    )
    parity_check: bool = Field(
        True, description="Require adapters to pass the parity gate before they are published; see docs/parity.md."
    )
    max_model_len: int | None = Field(
        None,
        ge=16,
        description="Maximum tokens of prompt and answer together. Unset: the base model's own maximum, on a GPU as "
        "far as memory allows, on a CPU up to 8192.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Data type of the weights in the engine. auto: the fastest type on the device."
    )
    kv_cache_gib: float | None = Field(
        None, gt=0, description="Memory for the key-value cache on a CPU, in GiB. Unset: depends on free memory."
    )
    gpu_memory_utilization: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Share of a GPU's memory that the engine may use. Unset: 0.9, or what a job beside it leaves.",
    )
    tensor_parallel: int | None = Field(
        None,
        ge=1,
        le=64,
        description="GPUs over which each engine spreads its base model. Unset: as few as it fits on.",
    )
    tool_call_parser: str | None = Field(
        None, description="vLLM's parser for tool calls in the model's text, for example hermes or mistral."
    )
    engine_args: list[str] = Field(
        default_factory=list, description="Additional arguments for vLLM, passed on unchanged."
    )
    engine_start_timeout_s: float = Field(
        600.0, gt=0, description="Seconds to wait for the engine's first answer before giving up."
    )
    engine_wait_s: float = Field(
        30.0, ge=0, description="Seconds that a request waits for an engine that is starting or restarting."
    )
    engine_stall_timeout_s: float = Field(
        60.0,
        gt=0,
        description="Seconds without an answer, or without progress on requests, after which the engine is restarted.",
    )
    accelerator_policy: Literal["auto", "split", "sleep", "stop", "separate"] = Field(
        "auto",
        description="What the engine does while a job trains: split (keeps running), sleep (GPU only), stop, "
        "or separate (own devices). auto: what this machine's memory allows.",
    )
    engine_devices: str | None = Field(
        None,
        pattern=DEVICE_NUMBERS,
        description="For separate: GPUs or cores for the engine, such as 0,1. Unset: half of them, or the rest.",
    )
    training_devices: str | None = Field(
        None,
        pattern=DEVICE_NUMBERS,
        description="For separate: GPUs or cores for training, such as 2,3. Unset: half of them, or the rest.",
    )
    base_model_map: dict[str, str] = Field(
        default_factory=dict,
        description="Additional names for the base model in chats and jobs, such as "
        "gpt-4o-mini-2024-07-18=tuneloop-demo.",
    )
    max_file_bytes: int = Field(
        512 * 2**20,
        ge=1024,
        description="Largest file accepted by POST /v1/files and /v1/adapters, in bytes; larger ones get a 413.",
    )
    max_upload_bytes: int = Field(
        8 * 2**30, ge=1024, description="Largest file accepted in parts by POST /v1/uploads, in bytes."
    )
    max_running_jobs: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Maximum number of fine-tuning jobs at once. Unset: as many as memory and cores allow.",
    )
    job_stop_grace_s: float = Field(
        60.0, gt=0, description="Seconds that a job's process has to write its checkpoint when it is stopped."
    )
    checkpoints_kept: int = Field(
        3,
        ge=0,
        le=100,
        description="Checkpoints per job that are kept and served by name; the oldest are deleted first.",
    )
    paused_job_status: Literal["queued", "paused"] = Field(
        "queued",
        description="Status of a paused job: queued, which the SDK's types allow, or paused, as in OpenAI's example.",
    )
    campaign_concurrency: int = Field(
        8, ge=1, le=256, description="Answers generated at once for campaigns, in addition to all other requests."
    )
    undo_window_s: int = Field(60, ge=0, le=86_400, description="Seconds within which a rater may undo a rating.")
    requests_per_minute: int | None = Field(
        None, ge=1, description="Requests per minute for each API key; more get a 429. Unset: no limit."
    )

    more_models: list[str] = Field(
        default_factory=list,
        description="Additional base models, each a hub id or a local folder, served by their own engines.",
    )
    replicas: int = Field(
        1, ge=1, le=64, description="Engines for each base model; a request goes to the least busy one."
    )
    remote_engines: dict[str, str] = Field(
        default_factory=dict,
        description="Remote engines whose models are served, as ID=URL, such as lab=https://lab.example/v1.",
    )
    remote_engine_keys: dict[str, SecretStr] = Field(
        default_factory=dict,
        description="API keys of remote engines, as ID=KEY. Use a file or the environment: process lists show flags.",
    )
    remote_adapter_engines: list[str] = Field(
        default_factory=list,
        description="IDs of remote vLLM engines that see the same adapters directory and share the work of the "
        "base model they serve. ID=BASE_MODEL if there are several base models.",
    )

    _origins: Mapping[str, str] = PrivateAttr(default_factory=dict)

    @field_validator("max_lora_rank", mode="before")
    @classmethod
    def _number_of_text(cls, value: Any) -> Any:
        """Return a flag's or the environment's string as a number, since a Literal doesn't convert strings."""
        return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value

    def origin_of(self, name: str) -> str:
        """Return where the setting's value came from: "default", a file's path, an environment name or "flag"."""
        return self._origins.get(name, "default")

    @property
    def largest_rank(self) -> int:
        """The maximum adapter rank: the setting, or vLLM's maximum."""
        return self.max_lora_rank or 512

    @property
    def adapters_dir(self) -> Path:
        """The folder of finished adapters, one directory per version."""
        return self.data_dir / "adapters"

    @property
    def runs_dir(self) -> Path:
        """The folder of training runs, one directory per run."""
        return self.data_dir / "runs"

    @property
    def files_dir(self) -> Path:
        """The folder of uploaded files and results, each under its id."""
        return self.data_dir / "files"

    @property
    def resolved_database_url(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database_url or f"sqlite:///{self.data_dir / 'tuneloop.db'}"

    @property
    def engine_device_numbers(self) -> tuple[int, ...]:
        """`engine_devices` as numbers."""
        return _numbers(self.engine_devices)

    @property
    def training_device_numbers(self) -> tuple[int, ...]:
        """`training_devices` as numbers."""
        return _numbers(self.training_devices)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in LOOPBACK_HOSTS


@dataclass(frozen=True)
class LoadedSettings:
    """Settings together with the origin of each value: "default", a file's path, an environment name or "flag"."""

    settings: Settings
    origins: Mapping[str, str] = field(default_factory=dict)


def load_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    config_file: Path | None = None,
) -> LoadedSettings:
    """Settings merged from file, environment and flags (a flag of None counts as not given).

    Raises:
        SettingsError: a setting is unknown or its value invalid; every error is listed.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in (
        *_file_layer(config_file),
        *_environment_layer(environ),
        *(("flag", {key: value}) for key, value in (flags or {}).items() if value is not None),
    ):
        values.update(layer)
        origins.update(dict.fromkeys(layer, origin))
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise SettingsError(_describe(error, origins)) from error
    settings._origins = {name: origins.get(name, "default") for name in Settings.model_fields}
    return LoadedSettings(settings, settings._origins)


def _file_layer(config_file: Path | None) -> list[tuple[str, dict[str, Any]]]:
    if config_file is None:
        return []
    try:
        content = yaml.safe_load(config_file.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(
            f"The settings file {config_file} can't be read: {error}. Check its path and its YAML syntax."
        ) from error
    if not isinstance(content, dict):
        raise SettingsError(f"The settings file {config_file} must have `name: value` lines, like `port: 8000`.")
    return [(str(config_file), content)]


def _environment_layer(environ: Mapping[str, str]) -> list[tuple[str, dict[str, Any]]]:
    layers: list[tuple[str, dict[str, Any]]] = []
    for name, info in Settings.model_fields.items():
        variable = ENV_PREFIX + name.upper()
        if variable in environ:
            value: Any = environ[variable]
            if "list" in str(info.annotation):
                value = value.split()
            elif "dict" in str(info.annotation):
                value = name_pairs(value.split(), is_secret=is_secret(name))
            layers.append((variable, {name: value}))
    return layers


def is_secret(name: str) -> bool:
    """Return whether this setting's values are secret."""
    return name in Settings.model_fields and "SecretStr" in str(Settings.model_fields[name].annotation)


def _numbers(text: str | None) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",")) if text else ()


def name_pairs(pairs: Sequence[str], *, is_secret: bool = False) -> dict[str, str]:
    """Return `["a=b", …]` as a dictionary.

    is_secret: whether to hide the pairs in errors.

    Raises:
        SettingsError: a pair has no `=`.
    """
    for pair in pairs:
        if not all(pair.partition("=")):
            shown = "A pair (hidden)" if is_secret else repr(pair)
            raise SettingsError(f"{shown} must be NAME=VALUE, like gpt-4o-mini-2024-07-18=tuneloop-demo.")
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def _describe(error: ValidationError, origins: Mapping[str, str]) -> str:
    lines = []
    for fault in error.errors():
        name = str(fault["loc"][0]) if fault["loc"] else "?"
        if fault["type"] == "extra_forbidden":
            lines.append(
                f"{name} (from {origins.get(name, '?')}): unknown setting; `tuneloop settings` lists all settings."
            )
        else:
            value = "***" if is_secret(name) else repr(fault["input"])
            lines.append(f"{name} = {value} (from {origins.get(name, '?')}): {fault['msg']}.")
    return "\n".join(lines)
