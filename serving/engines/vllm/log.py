"""Reads vLLM's log: the stage of a start, and the cause of a failed one.

The phrases are those of vLLM 0.32; a change costs a stage's name or a remedy, never the start.
"""

import re

_STAGES = (
    ("non-default args", "reading the model's configuration"),
    ("Initializing a V1 LLM engine", "starting the engine"),
    ("Starting to load model", "loading the weights"),
    ("Loading weights took", "allocating the KV cache"),
    ("init engine", "opening the engine's API"),
)

_OUT_OF_MEMORY = r"CUDA out of memory|OutOfMemoryError|can't allocate memory|Cannot allocate memory|MemoryError"
_NO_CACHE = r"No available memory for the cache blocks|KV cache is needed, which is larger than|Cannot auto-fit"
_IN_USE = r"Available memory on node|is less than desired GPU memory utilization|Free memory on device"
_CAUSES = (
    (
        _OUT_OF_MEMORY,
        "It ran out of memory: lower max_model_len, kv_cache_gib or max_adapters, or choose a smaller base model.",
    ),
    (
        _NO_CACHE,
        "The KV cache is too small for one request of full length: lower max_model_len, or raise kv_cache_gib "
        "(CPU) or gpu_memory_utilization (GPU).",
    ),
    (
        _IN_USE,
        "Other programs are using the memory: stop them, or lower kv_cache_gib (CPU) or gpu_memory_utilization (GPU).",
    ),
    (
        r"is greater than the derived max_model_len",
        "The model doesn't support contexts this long: lower max_model_len.",
    ),
    (
        r"are not supported for now|does not recognize this architecture|has no vLLM implementation",
        "vLLM doesn't support this architecture: choose another base model.",
    ),
    # Each start's log has "trust_remote_code=False" among the settings.
    (r"trust_remote_code(?!=False)", "The model requires custom code, which isn't run: choose another base model."),
    (r"does not support LoRA", "vLLM doesn't support adapters for this architecture: choose another base model."),
    (
        r"error: (unrecognized arguments|argument|ambiguous option)",
        "vLLM doesn't accept an argument: correct the setting engine_args.",
    ),
    (
        r"AF_UNIX path too long|Address already in use",
        "Its socket can't be opened: set XDG_RUNTIME_DIR to a shorter path.",
    ),
    (
        r"Could not load library|libcuda|CUDA driver version is insufficient|No CUDA GPUs are available",
        "The GPU's driver can't be used: run nvidia-smi, or install the cpu extra.",
    ),
)

_LOG_PREFIX = re.compile(r"^(\(\w[^)]*\) )?((ERROR|WARNING|INFO|CRITICAL) [\d-]+ [\d:]+ \[[^\]]*\] )?")
_ERROR_LINE = re.compile(r"^[\w.]*(Error|Exception|Interrupt)(: |$)|error: ")
_KILLED_CORE = re.compile(r"Failed core proc\(s\): \{'EngineCore[^']*': -9")
_UNINFORMATIVE = ("Engine core initialization failed", "WorkerProc initialization failed", "See root cause above")


def parse_stage(log: str) -> str:
    """Return the last stage that a start has reached by its log, in a few words."""
    reached = [stage for phrase, stage in _STAGES if phrase in log]
    return reached[-1] if reached else "loading vLLM"


def explain_failure(log: str, returncode: int | None) -> str:
    """Return why a start failed: the log's last meaningful error, and a remedy."""
    words = last_error_line(log)
    for pattern, remedy in _CAUSES:
        if re.search(pattern, log):
            return f"{words} {remedy}"
    if returncode in (-9, 137) or _KILLED_CORE.search(log):
        return (
            f"{words} It was killed, most likely because memory ran out: choose a smaller base model or kv_cache_gib."
        )
    return words


def lacks_memory(log: str) -> bool:
    """Return whether a failed start lacked memory."""
    return re.search(f"{_OUT_OF_MEMORY}|{_NO_CACHE}|{_IN_USE}", log) is not None


def last_error_line(log: str) -> str:
    """Return the last error line of the log that names a cause, at most 300 characters."""
    lines = [_LOG_PREFIX.sub("", line).strip() for line in log.splitlines()]
    errors = [
        line for line in lines if _ERROR_LINE.search(line) and not any(phrase in line for phrase in _UNINFORMATIVE)
    ]
    chosen = (errors or [line for line in lines if line] or ["There was no output."])[-1]
    return chosen[:300].rstrip(".") + "."
