"""A base that we never saw: a fresh Qwen-architecture model in a local folder, through the same commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import httpx
import openai
import pytest
import yaml

from tests.conftest import run_cli, running_server, wait_until_served
from tests.forking_python import ForkingPython

pytestmark = pytest.mark.engine
NAME = "tiny-qwen"


@pytest.fixture(scope="module")
def qwen(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 with random weights, its tokenizer and chat template borrowed."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("models") / NAME
    shutil.copytree(demo_model, folder, ignore=shutil.ignore_patterns("model.safetensors", "config.json"))
    size = json.loads((demo_model / "config.json").read_text())
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=size["vocab_size"], hidden_size=128, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024,
        eos_token_id=size["eos_token_id"], pad_token_id=size["pad_token_id"], bos_token_id=None,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


def test_fresh_base_is_tuned_and_its_adapter_hot_loaded(
    qwen: Path, tmp_path: Path, forking_python: ForkingPython
) -> None:
    lines = [
        {"instruction": f"Count to {number}.", "input": "", "output": " ".join(map(str, range(1, number + 1)))}
        for number in range(1, 13)
    ]
    (tmp_path / "alpaca.json").write_text(json.dumps(lines))
    config = {"base_model": str(qwen), "training_file": "alpaca.json", "validation_fraction": 0.2, "n_epochs": 3}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    with running_server(data_dir, qwen, forks=forking_python) as (url, _, _):
        done = run_cli("train", str(tmp_path / "run.yaml"), "--data-dir", str(data_dir))
        assert done.returncode == 0, done.stdout + done.stderr
        wait_until_served(url, next(word for word in done.stdout.split() if word.startswith("ft:")))
        with openai.OpenAI(base_url=f"{url}/v1", api_key="-", _strict_response_validation=True) as client:
            base, tuned = (model.id for model in client.models.list())
            assert base == NAME
            assert tuned.startswith(f"ft:{NAME}:personal::")
            for model in (base, tuned):
                messages = [{"role": "user", "content": "Count to 3."}]
                stream = client.chat.completions.create(model=model, messages=messages, max_tokens=8, stream=True)
                assert {chunk.model for chunk in stream} == {model}
        (adapter,) = httpx.get(f"{url}/v1/adapters").json()["data"]
        assert adapter["metrics"]["valid_perplexity"] < adapter["metrics"]["valid_perplexity_before"]
