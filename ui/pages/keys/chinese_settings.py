"""What each setting means, in 中文; the server describes them in English."""

from collections.abc import Mapping

SETTINGS_IN_CHINESE: Mapping[str, str] = {
    "model": "基座模型：Hub ID 或本地文件夹。未设置时使用内置演示模型，首次使用时构建。",
    "data_dir": "存放数据库、训练运行、适配器和日志的文件夹。",
    "cache_dir": "存放可重新生成的文件的文件夹，例如演示基座模型。",
    "host": "监听地址。使用非回环地址时必须设置 API 密钥。",
    "port": "API 和页面的 TCP 端口。0 表示自动选择空闲端口。",
    "allowed_hosts": "未设置密钥时，除回环地址外，浏览器还可以通过哪些主机名访问服务器。",
    "organization": "ft:{base}:{org}:{suffix}:{id} 中的 {org} 部分，只能包含小写字母、数字和连字符。",
    "database_url": "数据库的 SQLAlchemy URL。未设置时使用数据目录中的 SQLite。",
    "ui": "在 `/` 路径提供网页界面。",
    "max_body_bytes": "JSON 请求体的最大字节数，超出时返回 413。",
    "max_adapters": "每个批次的适配器数量（vLLM 的 max_loras），会占用设备内存。"
    "未设置时与适配器数量一致，最少 4，最多 8。",
    "max_cpu_adapters": "主机内存中的适配器数量上限（vLLM 的 max_cpu_loras），不得小于 max_adapters。",
    "max_lora_rank": "推理引擎支持的最大适配器秩，设得过大会降低速度。未设置时按适配器的需要设定，最小 32。",
    "parity_check": "适配器须通过一致性校验才能发布，参见 docs/parity.md。",
    "max_model_len": "提示词与回答合计的最大 token 数。未设置时使用基座模型的上限：GPU 上受显存限制，CPU 上最多 8192。",
    "dtype": "推理引擎中权重的数据类型。auto：设备上速度最快的类型。",
    "kv_cache_gib": "CPU 上 KV 缓存的内存大小，单位 GiB。未设置时取决于可用内存。",
    "gpu_memory_utilization": "推理引擎可使用的 GPU 显存比例。未设置时为 0.9；若训练任务同时运行，则为训练之外的部分。",
    "tensor_parallel": "每个推理引擎将基座模型分布到多少块 GPU 上（张量并行）。未设置时使用放得下所需的最少数量。",
    "tool_call_parser": "从模型输出中解析工具调用的 vLLM 解析器，例如 hermes 或 mistral。",
    "engine_args": "原样传递给 vLLM 的其他参数。",
    "engine_start_timeout_s": "等待推理引擎首次响应的最长秒数。",
    "engine_wait_s": "推理引擎启动或重启时，请求等待的秒数。",
    "engine_stall_timeout_s": "推理引擎无响应或请求无进展超过此秒数时，将被重启。",
    "accelerator_policy": "训练任务运行时推理引擎的行为：split（继续运行）、sleep（仅 GPU）、"
    "stop（停止）或 separate（使用独立设备）。auto：按本机内存或显存自动选择。",
    "engine_devices": "用于 separate：推理引擎使用的 GPU 或 CPU 核心，例如 0,1。未设置时使用一半，或其余部分。",
    "training_devices": "用于 separate：训练使用的 GPU 或 CPU 核心，例如 2,3。未设置时使用一半，或其余部分。",
    "base_model_map": "基座模型在对话和任务中的其他名称，例如 gpt-4o-mini-2024-07-18=tuneloop-demo。",
    "max_file_bytes": "POST /v1/files 和 /v1/adapters 接受的最大文件字节数，超出时返回 413。",
    "max_upload_bytes": "通过 POST /v1/uploads 分块上传的最大文件字节数。",
    "max_running_jobs": "同时运行的微调任务数上限。未设置时由内存和核心数决定。",
    "job_stop_grace_s": "任务进程被停止时，用于写入检查点的秒数。",
    "checkpoints_kept": "每个任务保留并可按名称调用的检查点数量，最旧的先删除。",
    "paused_job_status": "已暂停任务的状态：queued（SDK 类型允许）或 paused（与 OpenAI 示例一致）。",
    "campaign_concurrency": "评测活动同时生成的回答数上限，与其他请求分开计算。",
    "undo_window_s": "评分者可以撤销评分的秒数。",
    "requests_per_minute": "每个 API 密钥每分钟的请求数，超出时返回 429。未设置时不限制。",
    "more_models": "其他基座模型，均为 Hub ID 或本地文件夹，由各自的推理引擎提供服务。",
    "replicas": "每个基座模型的推理引擎数量，请求发往最空闲的一个。",
    "remote_engines": "远程推理引擎，其模型也可调用，格式为 ID=URL，例如 lab=https://lab.example/v1。",
    "remote_engine_keys": "远程推理引擎的 API 密钥，格式为 ID=KEY。"
    "请使用配置文件或环境变量，命令行参数会出现在进程列表中。",
    "remote_adapter_engines": "能访问同一适配器目录的远程 vLLM 的 ID，它们分担所服务的基座模型的请求。"
    "有多个基座模型时使用 ID=BASE_MODEL。",
}
