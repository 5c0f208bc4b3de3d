"""Files on a local path or ``s3://`` prefix, through pyarrow's native filesystems. What is only read, a feed and its pictures,
may also lie on ``gs://`` (Google Cloud Storage) or ``az://`` (Azure Blob Storage); ``w2w.clouds`` says how each is reached."""

import errno
import fcntl
import hashlib
import os
import re
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pyarrow import fs

from w2w.clouds import SYSTEMS, put_if
from w2w.errors import Changed, RejectCode, StorageFailed, UsageError, fault_of

_FULL = frozenset(map(os.strerror, (errno.ENOSPC, errno.EDQUOT)))


def is_s3(uri: str) -> bool:
    return uri.startswith("s3://")


def scheme(uri: str) -> str:
    """ "s3://", "gs://" or "az://"; "" for a local path and whatever else is none of these."""
    return next((known for known in SYSTEMS if uri.startswith(known)), "")


def join(uri: str, *parts: str) -> str:
    return "/".join([uri.rstrip("/"), *(p.strip("/") for p in parts)])


def absolute(uri: str) -> str:
    """The URI as an absolute one, valid in any working directory. Raises UsageError for another scheme or a missing bucket."""
    if scheme(uri) and not is_s3(uri):
        raise UsageError(f"{uri!r}: a path is local or starts with s3://; from {scheme(uri)} only feeds and pictures are read")
    return source(uri)


def folder(uri: str, option: str) -> str:
    """As ``absolute``. Raises UsageError naming ``option`` for what is a file on this machine."""
    found = absolute(uri)
    if not is_s3(found) and os.path.isfile(found):
        raise UsageError(f"{option}={uri}: is a file, and a folder is asked for")
    return found


def source(uri: str) -> str:
    """As ``absolute``, of what is only read."""
    if kind := scheme(uri):
        if not uri.removeprefix(kind).partition("/")[0]:
            raise UsageError(f"{uri!r}: names no bucket: {kind}BUCKET/PREFIX")
        return uri.rstrip("/")
    if "://" in uri:
        raise UsageError(f"{uri!r}: a path is local or starts with s3://")
    return str(local(uri).absolute())


def local(name: str) -> Path:
    """A path on this machine. Raises UsageError for the home of an unknown user (~name).

    Test existence with ``os.path``: a Path raises for a name that is too long.
    """
    try:
        return Path(name).expanduser()
    except RuntimeError as e:
        raise UsageError(f"{name!r}: {e}") from None


def cache_folder() -> Path:
    """Folder of downloaded and converted models, and of copies of indexes: ``W2W_CACHE``, by default ~/.cache/w2w. Raises
    UsageError without either, as for a user of a container whom its system does not know."""
    if named := os.environ.get("W2W_CACHE"):
        return local(named)
    try:
        return Path.home() / ".cache" / "w2w"
    except RuntimeError:
        raise UsageError("this user has no home folder: set W2W_CACHE to one that models can be kept in") from None


def filesystem(uri: str) -> tuple[fs.FileSystem, str]:
    """The native filesystem of ``uri`` and the path on it."""
    kind = scheme(uri)
    return (SYSTEMS[kind](), uri.removeprefix(kind).rstrip("/")) if kind else (fs.LocalFileSystem(), absolute(uri))


@contextmanager
def named(doing: str, uri: str) -> Iterator[None]:
    """Re-raises an OSError in the block as ``StorageFailed``: "cannot read s3://bucket/x: ..."."""
    try:
        yield
    except StorageFailed:
        raise
    except OSError as e:
        raise StorageFailed(f"cannot {doing} {uri}: {_reason(e)}") from e


def _reason(error: OSError) -> str:
    """The reason in one line, without pyarrow's repetitions: of a failed call to the system, what the system said."""
    said = error.strerror or str(error) or type(error).__name__
    system = re.search(r"\. Detail: \[errno \d+\] ([^\n]+)", said)
    return system[1] if system else said.split(". Detail")[0].splitlines()[0]


def exists(uri: str) -> bool:
    """Whether a file or folder exists; False for impossible names (too long, with a NUL character)."""
    with named("read", uri):
        system, path = filesystem(uri)
        try:
            return system.get_file_info(path).type != fs.FileType.NotFound
        except (OSError, ValueError) as e:
            fault = fault_of(e)
            if fault is None or fault.code == RejectCode.FORBIDDEN:
                raise
            return False


def read_bytes(uri: str) -> bytes:
    """The file's content. Raises FileNotFoundError if it does not exist."""
    try:
        with named("read", uri):
            system, path = filesystem(uri)
            if not scheme(uri) and system.get_file_info(path).type == fs.FileType.Unknown:
                raise OSError(errno.EINVAL, "not a plain file")  # reading a pipe would block
            with system.open_input_file(path) as f:
                return f.read()
    except StorageFailed as e:
        if isinstance(e.__cause__, FileNotFoundError):
            raise e.__cause__ from None
        raise


def sha256(uri: str) -> str | None:
    """sha256 of a file's content, read in chunks; None if it does not exist."""
    found = hashlib.sha256()
    with named("read", uri):
        system, path = filesystem(uri)
        try:
            with system.open_input_stream(path) as f:
                while part := f.read(4 << 20):
                    found.update(part)
        except FileNotFoundError:
            return None
    return found.hexdigest()


# what a browser asks of a bucket: without a type it saves a page where it should show it
_CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
}


def write_bytes(uri: str, data: bytes | memoryview) -> None:
    """Atomic: a reader sees the old content or the new one, never a part (rename on disk, one PUT on S3)."""
    with writer(uri) as f:
        f.write(data)


@contextmanager
def writer(uri: str) -> Iterator[BinaryIO]:
    """Opens a file for writing in chunks. On disk it is atomic, as in ``write_bytes``. On S3 an interrupted upload may leave a
    truncated object: write large files under new names, and then the small one that names them."""
    system, path = filesystem(absolute(uri))
    with named("write", uri):
        if is_s3(uri):
            kind = _CONTENT_TYPES.get(Path(path).suffix)
            with system.open_output_stream(path, metadata={"Content-Type": kind} if kind else None) as f:
                yield f
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
        try:
            with open(part, "wb") as f:
                yield f
                f.flush()
                os.fsync(f.fileno())
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)


def replace_if(uri: str, data: bytes, expected: bytes | None) -> None:
    """Atomically replaces a small file that still holds ``expected`` (None: does not exist); of several writers one wins.
    Raises Changed, and writes nothing, if the content differs.

    On S3 by a conditional PUT; on disk under a lock file beside it, ``.NAME.lock``.
    """
    if is_s3(uri):
        with named("write", uri):
            put_if(uri, data, expected)
        return
    target = Path(absolute(uri))
    with named("write", uri):
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target.with_name(f".{target.name}.lock"), "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # held until it is closed
            if (target.read_bytes() if target.exists() else None) != expected:
                raise Changed(f"{uri} was written by another run at the same time")
            write_bytes(uri, data)


def list_folders(uri: str) -> list[str]:
    """Names of the direct subfolders, sorted; empty if ``uri`` does not exist."""
    system, path = filesystem(uri)
    found = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return sorted(f.base_name for f in found if f.type == fs.FileType.Directory)


def list_files(uri: str, recursive: bool = True, unusable: list[tuple[str, str]] | None = None) -> list[fs.FileInfo]:
    """Files below ``uri`` (paths on its filesystem, sizes, mtimes), sorted by path; empty if it does not exist.

    Links are followed, except into a folder that contains them. ``unusable`` is called with (printable path, reason) for each
    entry that is neither a folder nor a readable file: a name that is not UTF-8, a dangling link, a pipe.
    """
    with named("list", uri):
        system, path = filesystem(uri)
        if scheme(uri):
            found = system.get_file_info(fs.FileSelector(path, allow_not_found=True, recursive=recursive))
            return sorted((f for f in found if f.type == fs.FileType.File), key=lambda f: f.path)
        return sorted(_walk(path, recursive, [] if unusable is None else unusable), key=lambda f: f.path)


def _walk(root: str, recursive: bool, unusable: list[tuple[str, str]]) -> Iterator[fs.FileInfo]:
    """Not through pyarrow, which stops at a name that is not UTF-8 and follows a link to its own folder 40 times."""
    if not os.path.exists(root):
        return
    folders = [(root, frozenset([_identity(os.stat(root))]))]  # a folder and its ancestors
    while folders:
        folder, above = folders.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    about, why = entry.stat(), ""
                except OSError as e:
                    if e.errno not in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
                        raise
                    about, why = None, "a link that leads nowhere"
                if about and stat.S_ISDIR(about.st_mode):
                    if recursive and _identity(about) not in above:
                        folders.append((entry.path, above | {_identity(about)}))
                    continue
                if about and not stat.S_ISREG(about.st_mode):
                    why = "not a plain file"
                if not is_text(entry.path):
                    why = "its name is not UTF-8"
                if why or about is None:
                    unusable.append((os.fsencode(entry.path).decode("utf-8", "backslashreplace"), why))
                else:
                    yield fs.FileInfo(entry.path, fs.FileType.File, size=about.st_size, mtime_ns=about.st_mtime_ns)


def _identity(about: os.stat_result) -> tuple[int, int]:
    return about.st_dev, about.st_ino


def is_text(path: str) -> bool:
    """Whether a name from a disk or archive was UTF-8: Python represents undecodable bytes as lone surrogates."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def delete(uri: str) -> None:
    """Deletes a file or a whole folder; a missing one is not an error."""
    with named("delete", uri):
        system, path = filesystem(absolute(uri))
        kind = system.get_file_info(path).type
        if kind == fs.FileType.Directory:
            system.delete_dir(path)
        elif kind == fs.FileType.File:
            system.delete_file(path)


def check_writable(uri: str, option: str) -> None:
    """Raises UsageError naming ``option`` unless a file can be written, read back and deleted below ``uri``; StorageFailed
    where the disk is full."""
    probe = join(absolute(uri), f".w2w-probe-{uuid.uuid4().hex[:8]}")
    try:
        write_bytes(probe, b"w2w")
        read_bytes(probe)
        delete(probe)
    except OSError as e:
        reason = _reason(e.__cause__ if isinstance(e.__cause__, OSError) else e)
        failure = StorageFailed if reason in _FULL else UsageError
        raise failure(f"{option}={uri}: cannot write there: {reason}") from e
