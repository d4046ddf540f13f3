"""Makes archives of adapters, sound ones and such as nobody should open."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Files = Mapping[str, bytes]


def files_of(folder: Path) -> dict[str, bytes]:
    """Name → content of the files in a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def tar_gz(files: Files, *, within: str = "", format: int = tarfile.PAX_FORMAT, **entry: Any) -> bytes:
    """A .tar.gz of these files. entry: attributes that each header gets."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", format=format) as archive:
        for name, content in files.items():
            header = tarfile.TarInfo(within + name)
            header.size = len(content)
            for attribute, value in entry.items():
                setattr(header, attribute, value)
            archive.addfile(header, io.BytesIO(content))
    return packed.getvalue()


def zipped(files: Files, *, within: str = "", method: int = zipfile.ZIP_DEFLATED, **entry: Any) -> bytes:
    """A .zip of these files. entry: attributes that each header gets."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, content in files.items():
            header = zipfile.ZipInfo(within + name)
            header.compress_type = method
            for attribute, value in entry.items():
                setattr(header, attribute, value)
            archive.writestr(header, content)
    return packed.getvalue()


@dataclass(frozen=True)
class BadArchive:
    """An archive that must be refused."""

    fault: str
    words: str
    pack: Callable[[Files], bytes]
    """Packs the files of a sound adapter, and something beside."""

    def __str__(self) -> str:
        return self.fault


def tar_beside(kind: bytes, **entry: Any) -> Callable[[Files], bytes]:
    """A tar of the files and one entry of another kind."""

    def pack(files: Files) -> bytes:
        content = io.BytesIO(gzip.decompress(tar_gz(files)))
        header = tarfile.TarInfo("README.md")
        header.type = kind
        for attribute, value in entry.items():
            setattr(header, attribute, value)
        with tarfile.open(fileobj=content, mode="a:") as archive:
            archive.addfile(header)
        return gzip.compress(content.getvalue())

    return pack


def raw_tar(blocks: Iterable[bytes]) -> bytes:
    """A .tar.gz of these blocks, each filled up to 512 bytes, and an end."""
    return gzip.compress(b"".join(block + bytes(-len(block) % 512) for block in blocks) + bytes(1024))


def header_of(name: str, kind: bytes, size: int, *, digits: bytes | None = None) -> bytes:
    """A ustar header; digits: what stands for the size."""
    block = bytearray(512)
    block[:100] = name.encode().ljust(100, b"\0")[:100]
    block[100:108], block[124:136] = b"0000644\0", digits or b"%011o\0" % size
    block[156:157], block[257:265] = kind, b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(records: bytes, kind: bytes = b"x") -> list[bytes]:
    return [header_of("pax", kind, len(records)), records]


def record(key: str, value: str) -> bytes:
    body = f" {key}={value}\n".encode()
    length = len(body) + 2
    return str(length + (length >= 100)).encode() + body


def tar_named(name: str) -> Callable[[Files], bytes]:
    return lambda files: tar_gz({**files, name: b"x"})


def zip_named(name: str) -> Callable[[Files], bytes]:
    return lambda files: zipped({**files, name: b"x"})


def patched_zip(offset: int, value: bytes, *, local: int | None = None) -> Callable[[Files], bytes]:
    """A zip whose first entry in the directory has `value` at `offset`, and its own header at `local`."""

    def pack(files: Files) -> bytes:
        content = bytearray(zipped(files))
        start = content.index(b"PK\x01\x02") + offset
        content[start : start + len(value)] = value
        if local is not None:
            content[local : local + len(value)] = value
        return bytes(content)

    return pack


def huge_directory(files: Files) -> bytes:
    """A zip that says that its directory of entries has 3 MB, and has them."""
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 9, 9, 3_000_000, 4, 0)
    return b"PK\x03\x04" + bytes(3_000_000) + end


def bomb_tar(files: Files) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    size = 80 * 2**20
    parts = [packer.compress(header_of("adapter_model.safetensors", b"0", size))]
    parts += [packer.compress(bytes(2**20)) for _ in range(80)]
    return b"".join([*parts, packer.compress(bytes(1024)), packer.flush()])


def bomb_zip(files: Files) -> bytes:
    return zipped({"adapter_model.safetensors": bytes(80 * 2**20)})


def lying_bomb(files: Files) -> bytes:
    """A bomb that says in its directory that it unpacks to ten bytes."""
    content = bytearray(bomb_zip(files))
    start = content.index(b"PK\x01\x02")
    content[start + 24 : start + 28] = struct.pack("<L", 10)
    return bytes(content)


def zip_with_link(files: Files) -> bytes:
    content = zipfile.ZipInfo("README.md")
    content.external_attr = (stat.S_IFLNK | 0o777) << 16
    packed = io.BytesIO(zipped(files))
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr(content, "/etc/passwd")
    return packed.getvalue()


def endless_headers(files: Files) -> bytes:
    return raw_tar(block for _ in range(1000) for block in pax(record("mtime", "1")))


def two_spellings(files: Files) -> bytes:
    """A tar with one file twice, once with a dot before it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in ("adapter_config.json", "./adapter_config.json"):
            header = tarfile.TarInfo(name)
            header.size = len(files["adapter_config.json"])
            archive.addfile(header, io.BytesIO(files["adapter_config.json"]))
    return packed.getvalue()


NO_PATH = "isn't a plain relative path"
NAMES = {
    "up": "../README.md",
    "up within": "adapter/../README.md",
    "far up": "../" * 20 + "etc/cron.d/x",
    "absolute": "/etc/passwd",
    "a Windows drive": "C:README.md",
    "a Windows path": "..\\README.md",
    "a bell": "READ\aME.md",
    "turned around": "README\u202edm.",
    "an empty part": "adapter//README.md",
    "a dot": "adapter/./README.md",
    "256 characters": "x" * 256,
    "5,000 characters": "x" * 5000,
}
TARS = [
    *(BadArchive(f"tar: {fault}", NO_PATH, tar_named(name)) for fault, name in NAMES.items()),
    BadArchive("tar: two folders deep", "in a nested folder", tar_named("a/b/README.md")),
    BadArchive("tar: a symbolic link", "a symbolic link", tar_beside(tarfile.SYMTYPE, linkname="/etc/passwd")),
    BadArchive("tar: a hard link", "a hard link", tar_beside(tarfile.LNKTYPE, linkname="adapter_config.json")),
    BadArchive("tar: a device", "a device", tar_beside(tarfile.CHRTYPE, devmajor=1, devminor=5)),
    BadArchive("tar: a pipe", "a named pipe", tar_beside(tarfile.FIFOTYPE)),
    BadArchive("tar: GNU's sparse", "a sparse file", tar_beside(tarfile.GNUTYPE_SPARSE)),
    BadArchive("tar: an unknown kind", "of an unknown kind", tar_beside(b"Z")),
    BadArchive("tar: a folder with a content", "regular files in one folder", lambda files: raw_tar(
        [header_of("a/", b"0", 5), b"12345"])),
    BadArchive("tar: pax' sparse", "a sparse file", lambda files: raw_tar(
        [*pax(record("GNU.sparse.size", "99")), header_of("README.md", b"0", 0)])),
    BadArchive("tar: a path in pax that leads up", NO_PATH, lambda files: raw_tar(
        [*pax(record("path", "../../x")), header_of("README.md", b"0", 0)])),
    BadArchive("tar: a path in pax with a NUL", NO_PATH, lambda files: raw_tar(
        [*pax(record("path", "README.md\0x")), header_of("README.md", b"0", 0)])),
    BadArchive("tar: a path for all files", "two names for one file", lambda files: raw_tar(
        [*pax(record("path", "README.md"), b"g"), header_of("x", b"0", 0)])),
    BadArchive("tar: two paths for one file", "two names for one file", lambda files: raw_tar(
        [*pax(record("path", "a")), *pax(record("path", "b")), header_of("x", b"0", 0)])),
    BadArchive("tar: another size in pax", "is truncated", lambda files: raw_tar(
        [*pax(record("size", "999999")), header_of("README.md", b"0", 0)])),
    BadArchive("tar: a size below 0", "invalid file size: '-5' bytes", lambda files: raw_tar(
        [*pax(record("size", "-5")), header_of("README.md", b"0", 0)])),
    BadArchive("tar: a pax record that overlaps", "can't be read", lambda files: raw_tar(
        [*pax(b"99 path=x\n"), header_of("README.md", b"0", 0)])),
    BadArchive("tar: a pax record of no length", "can't be read", lambda files: raw_tar(
        [*pax(b"0 path=x\n"), header_of("README.md", b"0", 0)])),
    BadArchive("tar: other characters", "aren't UTF-8", lambda files: raw_tar(
        [*pax(record("hdrcharset", "BINARY")), header_of("README.md", b"0", 0)])),
    BadArchive("tar: a pax header of 1 MB", "headers of more than", lambda files: raw_tar(pax(b"x" * 2**20))),
    BadArchive("tar: a thousand headers", "for one file", endless_headers),
    BadArchive("tar: a long name that is none", "isn't UTF-8", lambda files: raw_tar(
        [header_of("././@LongLink", b"L", 4), b"\xff\xfe\xfd\0", header_of("x", b"0", 0)])),
    BadArchive("tar: a size in base 256", "isn't octal", lambda files: raw_tar(
        [header_of("README.md", b"0", 0, digits=b"\x80" + b"\xff" * 11)])),
    BadArchive("tar: a wrong checksum", "checksum is wrong", lambda files: raw_tar(
        [header_of("README.md", b"0", 0).replace(b"README", b"readme")])),
    BadArchive("tar: text", "isn't octal", lambda files: gzip.compress(b"hello, world" * 100)),
    BadArchive("tar: cut within", "is truncated", lambda files: gzip.compress(gzip.decompress(tar_gz(files))[:700])),
    BadArchive("tar: no end", "is truncated", lambda files: gzip.compress(
        header_of("README.md", b"0", 0))),
    BadArchive("tar: data after its end", "continues after its end", lambda files: gzip.compress(
        gzip.decompress(tar_gz(files)) + b"x")),
    BadArchive("tar: endless zeros", "continues after its end", lambda files: gzip.compress(
        gzip.decompress(tar_gz(files)) + bytes(2**23))),
    BadArchive("gzip: cut", "is truncated", lambda files: tar_gz(files)[:-20]),
    BadArchive("gzip: another checksum", "gzip:", lambda files: tar_gz(files)[:-8] + bytes(8)),
    BadArchive("gzip: garbage", "gzip:", lambda files: b"\x1f\x8b\x08" + b"\xff" * 100),
    BadArchive("gzip: two files", "data after its end", lambda files: tar_gz(files) * 2),
    BadArchive("gzip: a bomb", "unpacks to more than", bomb_tar),
]  # fmt: skip
ZIPS = [
    *(BadArchive(f"zip: {fault}", NO_PATH, zip_named(name)) for fault, name in NAMES.items()),
    BadArchive("zip: two folders deep", "in a nested folder", zip_named("a/b/README.md")),
    BadArchive("zip: a NUL in a name", NO_PATH, lambda files: zipped(files).replace(
        b"adapter_config.json", b"adapter_config\0json")),
    BadArchive("zip: a symbolic link", "a symbolic link", zip_with_link),
    BadArchive("zip: a pipe", "of another kind", lambda files: zipped(files, external_attr=stat.S_IFIFO << 16)),
    BadArchive("zip: encrypted", "is encrypted", patched_zip(8, b"\x01\x00", local=6)),
    BadArchive("zip: lzma", "compressed by method 14", lambda files: zipped(files, method=zipfile.ZIP_LZMA)),
    BadArchive("zip: a size of zip64 that is none", "The archive is damaged", patched_zip(24, b"\xff\xff\xff\xff")),
    BadArchive("zip: a place outside itself", "The archive is damaged", patched_zip(42, b"\xf0\xff\xff\x7f")),
    BadArchive("zip: another checksum", "The archive is damaged", patched_zip(16, b"\0\0\0\0")),
    BadArchive("zip: another name in its header", "The archive is damaged", patched_zip(46, b"X")),
    BadArchive("zip: cut", "The archive is damaged", lambda files: zipped(files)[:-30]),
    BadArchive("zip: garbage", "The archive is damaged", lambda files: b"PK\x03\x04" + b"\xff" * 500),
    BadArchive("zip: a directory of 3 MB", "The archive is damaged", huge_directory),
    BadArchive("zip: a bomb", "unpacks to more than", bomb_zip),
    BadArchive("zip: a bomb that says it's small", "The archive is damaged", lying_bomb),
    BadArchive("zip: a folder with a content", "has content", lambda files: zipped({**files, "a/": b"x"})),
]  # fmt: skip
OTHERS = [
    BadArchive("nothing", "neither a .tar.gz nor a .zip", lambda files: b""),
    BadArchive("a tar that isn't packed", "neither a .tar.gz", lambda files: gzip.decompress(tar_gz(files))),
    BadArchive("weights alone", "neither a .tar.gz", lambda files: files["adapter_model.safetensors"]),
    BadArchive("one name twice", "twice", two_spellings),
    BadArchive("one name in two spellings", "twice", lambda files: zipped({**files, "ADAPTER_CONFIG.JSON": b""})),
    BadArchive("two adapters", "in a different folder", lambda files: zipped(
        {f"{folder}/{name}": content for folder in "ab" for name, content in files.items()})),
    BadArchive("257 entries", "more than 256 entries", lambda files: zipped({f"{n}.txt": b"" for n in range(257)})),
    BadArchive("a pickle", "is a pickle", lambda files: tar_gz({**files, "optimizer.PT": b"\x80"})),
]  # fmt: skip
BAD_ARCHIVES = [*TARS, *ZIPS, *OTHERS]
