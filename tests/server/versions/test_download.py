"""`/v1/adapters/{id}/archive` over HTTP: what goes out comes in again as the same model and tells of no folder."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from serving import BaseModel
from tests.server.conftest import Gateway, StartGateway
from tests.server.jobs.test_fine_tuning_api import add_adapter
from tests.serving.adapters.adapters_on_disk import write_base, write_peft_adapter
from tests.serving.adapters.archives import files_of, tar_gz
from tests.serving.adapters.bad_adapters import with_tokenizer

NAME = "ft:base:personal:one:oooooooo"


@pytest.fixture
def base(tmp_path: Path) -> BaseModel:
    """The gateway's base, with weights."""
    return with_tokenizer(write_base(tmp_path / "base"))


def test_what_goes_out_comes_in_again_as_the_same_weights(
    base: BaseModel, start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = start_gateway()
    packed = tar_gz(files_of(write_peft_adapter(tmp_path / "peft", base)))
    first = gateway.http.post("/v1/adapters", files={"file": ("a.tar.gz", packed)}, data={"name": "first"}).json()
    answer = gateway.http.get(f"/v1/adapters/{first['id']}/archive")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/gzip")
    assert answer.headers["content-disposition"] == 'attachment; filename="first.tar.gz"'
    again = gateway.http.post("/v1/adapters", files={"file": ("b.tar.gz", answer.content)}, data={"name": "second"})
    assert again.status_code == 201, again.text
    folders = [gateway.services.settings.adapters_dir / one["id"] for one in (first, again.json())]
    weights = [(folder / "adapter_model.safetensors").read_bytes() for folder in folders]
    assert weights[0] == weights[1]


def test_the_archive_holds_the_directory_and_no_path_of_this_machine(gateway: Gateway, tmp_path: Path) -> None:
    folder = add_adapter(gateway, NAME)
    (folder / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 20_000 + b"end")
    (folder / ".half-written").write_text("no")
    (folder / "link").symlink_to("/etc/passwd")
    manifest = json.loads((folder / "manifest.json").read_text())
    config = {"training_file": str(tmp_path / "secret" / "a.jsonl"), "r": 8, "output_dir": str(folder)}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"config": config}))
    content = gateway.http.get(f"/v1/adapters/{folder.name}/archive").content
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        names = archive.getnames()
        files = {name: archive.extractfile(name).read() for name in names}  # type: ignore[union-attr]
    wanted = ("adapter_config.json", "adapter_model.safetensors", "manifest.json")
    assert names == [f"{folder.name}/{name}" for name in wanted]
    assert files[names[1]] == (folder / "adapter_model.safetensors").read_bytes()
    told = json.loads(files[names[2]])
    assert told["config"] == {"training_file": "a.jsonl", "r": 8, "output_dir": folder.name}
    assert str(tmp_path) not in files[names[2]].decode()


def test_a_download_goes_on_when_the_model_is_deleted_meanwhile(gateway: Gateway) -> None:
    folder = add_adapter(gateway, NAME)
    weights = bytes(range(256)) * 100_000
    (folder / "adapter_model.safetensors").write_bytes(weights)
    with gateway.http.stream("GET", f"/v1/adapters/{folder.name}/archive") as answer:
        pieces = answer.iter_raw()
        begun = next(pieces)
        assert gateway.http.delete(f"/v1/models/{NAME}").status_code == 200
        content = begun + b"".join(pieces)
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        member = archive.extractfile(f"{folder.name}/adapter_model.safetensors")
        assert member is not None
        assert member.read() == weights
    assert gateway.http.get(f"/v1/adapters/{folder.name}/archive").status_code == 404


def test_nothing_but_an_adapters_id_leads_to_a_file(gateway: Gateway) -> None:
    add_adapter(gateway, NAME)
    for adapter_id in ("adapter-nobody", "..", "%2E%2E%2Fadapters", "adapter-0%00", NAME):
        answer = gateway.http.get(f"/v1/adapters/{adapter_id}/archive")
        assert answer.status_code == 404, adapter_id
