"""Names of the files in an adapter directory: what PEFT saves, and the manifest beside it.

https://huggingface.co/docs/peft/developer_guides/checkpoint
"""

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
MANIFEST_FILE = "manifest.json"
ADAPTER_FILES = (CONFIG_FILE, WEIGHTS_FILE, MANIFEST_FILE)
