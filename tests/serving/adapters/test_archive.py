"""What comes out of an archive is an adapter's files and nothing else; every trick is refused with its reason."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from serving import AdapterError, BaseModel
from serving.adapters.archive.unpack import unpack_adapter
from tests.serving.adapters.adapters_on_disk import write_peft_adapter
from tests.serving.adapters.archives import BAD_ARCHIVES, BadArchive, Files, files_of, tar_gz, zipped

MAX_BYTES = 2**30
Pack = Callable[..., bytes]


@pytest.fixture
def files(base: BaseModel, tmp_path: Path) -> Files:
    """Those of a sound adapter."""
    return files_of(write_peft_adapter(tmp_path / "peft", base))


def unpacked(content: bytes, tmp_path: Path, *, max_bytes: int = MAX_BYTES) -> Path:
    archive, folder = tmp_path / "archive", tmp_path / "private"
    archive.write_bytes(content)
    folder.mkdir()
    return unpack_adapter(archive, folder, max_bytes=max_bytes)


@pytest.mark.parametrize("within", ["", "./", "adapter/", "./adapter/", "适配器/"])
@pytest.mark.parametrize("pack", [tar_gz, zipped])
def test_an_adapter_comes_out_as_it_went_in(pack: Pack, within: str, files: Files, tmp_path: Path) -> None:
    assert files_of(unpacked(pack(files, within=within), tmp_path)) == files


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_common_form_of_tar_is_read(format: int, files: Files, tmp_path: Path) -> None:
    within = "x" * 90 + "/" if format == tarfile.USTAR_FORMAT else "é" * 100 + "/"
    packed = tar_gz(files, within=within, format=format, mtime=1.5 if format == tarfile.PAX_FORMAT else 1)
    assert files_of(unpacked(packed, tmp_path)) == files


def test_what_the_tar_command_packs_is_read(files: Files, tmp_path: Path) -> None:
    for arguments in (["-C", str(tmp_path), "peft"], ["-C", str(tmp_path / "peft"), "."]):
        archive = tmp_path / f"{len(arguments[1])}.tgz"
        subprocess.run(["tar", "-czf", str(archive), *arguments], check=True)
        folder = tmp_path / f"private-{archive.stem}"
        folder.mkdir()
        assert files_of(unpack_adapter(archive, folder, max_bytes=MAX_BYTES)) == files


@pytest.mark.parametrize("pack", [tar_gz, zipped])
def test_other_harmless_files_stay_in_the_archive(pack: Pack, files: Files, tmp_path: Path) -> None:
    beside = {"notes.txt": b"x", "log.csv": b"", "__MACOSX/a/._adapter_config.json": b"x", "._README.md": b"x"}
    assert files_of(unpacked(pack({**files, **beside}), tmp_path)) == files


@pytest.mark.parametrize("bad", BAD_ARCHIVES, ids=str)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_a_trick_is_refused_and_touches_nothing(bad: BadArchive, files: Files, tmp_path: Path) -> None:
    content = bad.pack(files)
    with pytest.raises(AdapterError) as caught:
        unpacked(content, tmp_path)
    assert bad.words in str(caught.value)
    assert str(caught.value).isprintable()
    made = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")}
    assert made == {"tiny-base", "peft", "archive", "private"}
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("pack", [tar_gz, zipped])
def test_unpacked_bytes_are_bounded(pack: Pack, files: Files, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="unpacks to more than the limit of 100 bytes"):
        unpacked(pack(files), tmp_path, max_bytes=100)


def test_what_comes_out_is_for_our_eyes_only(files: Files, tmp_path: Path) -> None:
    folder = unpacked(tar_gz(files, mode=0o6777), tmp_path)
    assert {path.stat().st_mode & 0o7777 for path in folder.iterdir()} == {0o600}
