"""Files on a local path or ``s3://`` prefix, by pyarrow's native filesystems.

S3 is configured by the standard AWS variables alone (``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, ``AWS_REGION``, a
profile, an instance role), so that pyarrow, s3fs and Delta Lake see the same settings on every machine of a cluster.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pyarrow import fs

from w2w.errors import UsageError


def is_s3(uri: str) -> bool:
    return uri.startswith("s3://")


def join(uri: str, *parts: str) -> str:
    return "/".join([uri.rstrip("/"), *(p.strip("/") for p in parts)])


def absolute(uri: str) -> str:
    """The same place for a worker whose working directory is another one. Raises UsageError for an unknown scheme."""
    if is_s3(uri):
        return uri.rstrip("/")
    if "://" in uri:
        raise UsageError(f"{uri!r}: a path is local or starts with s3://")
    return str(Path(uri).expanduser().absolute())


def filesystem(uri: str) -> tuple[fs.FileSystem, str]:
    """The native filesystem of ``uri`` and the path on it."""
    if not is_s3(uri):
        return fs.LocalFileSystem(), absolute(uri)
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    s3 = fs.S3FileSystem(
        endpoint_override=endpoint,
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ("us-east-1" if endpoint else None),
        allow_delayed_open=False,
    )
    return s3, uri.removeprefix("s3://").rstrip("/")


def exists(uri: str) -> bool:
    system, path = filesystem(uri)
    return system.get_file_info(path).type != fs.FileType.NotFound


def read_bytes(uri: str) -> bytes:
    """Raises FileNotFoundError where nothing is there."""
    system, path = filesystem(uri)
    with system.open_input_file(path) as f:
        return f.read()


def write_bytes(uri: str, data: bytes) -> None:
    """All or nothing: a reader sees the old content or the new one, never a part (rename on disk, one PUT on S3)."""
    with writer(uri) as f:
        f.write(data)


@contextmanager
def writer(uri: str) -> Iterator[BinaryIO]:
    """A file to write in parts. On disk all or nothing, as ``write_bytes``. On S3 an upload that is broken off may leave its
    beginning behind: write large files under new names, and afterwards the small one that names them."""
    system, path = filesystem(uri)
    if is_s3(uri):
        with system.open_output_stream(path) as f:
            yield f
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    with open(part, "wb") as f:
        yield f
        f.flush()
        os.fsync(f.fileno())
    os.replace(part, target)


def list_files(uri: str, recursive: bool = True) -> list[fs.FileInfo]:
    """Files below ``uri`` (paths on its filesystem, sizes, mtimes), sorted by path; empty where it does not exist."""
    system, path = filesystem(uri)
    found = system.get_file_info(fs.FileSelector(path, allow_not_found=True, recursive=recursive))
    return sorted((f for f in found if f.type == fs.FileType.File), key=lambda f: f.path)


def delete(uri: str) -> None:
    """Deletes one file or a whole folder; nothing to delete is no error."""
    system, path = filesystem(uri)
    kind = system.get_file_info(path).type
    if kind == fs.FileType.Directory:
        system.delete_dir(path)
    elif kind == fs.FileType.File:
        system.delete_file(path)


def check_writable(uri: str, option: str) -> None:
    """Raises UsageError naming ``option`` unless a file can be written, read back and deleted below ``uri``."""
    probe = join(absolute(uri), f".w2w-probe-{uuid.uuid4().hex[:8]}")
    try:
        write_bytes(probe, b"w2w")
        read_bytes(probe)
        delete(probe)
    except OSError as e:
        reason = str(e).split(". Detail")[0]
        raise UsageError(f"{option}={uri}: cannot write there: {reason}") from e
