"""Image folders and tar shards (WebDataset) as raw batches. Nothing is extracted: an image in a tar is an offset and a size."""

import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath
from typing import IO, cast

import pyarrow as pa
from pyarrow import fs

from w2w import schema, storage
from w2w.errors import RejectCode, UsageError
from w2w.images.sniff import SUFFIXES
from w2w.ingest.dicts import JSON, MAX_BATCH_BYTES, batch_of_dicts
from w2w.ingest.raw import IMAGE, Mapping, RawBatch, RejectRow, image_table, no_attributes, reject_table

MEMBER = ".tar#"  # an image in a tar is <path>.tar#<member>: a single name that includes the file to open
_ABOUT = ("json", "txt", "cls")
_MAX_METADATA_BYTES = 1024 * 1024  # of one .json, .txt or .cls member
_MAX_READ_BYTES = 16 * 1024 * 1024  # per read of a tar's own structures: a long-name header may claim gigabytes
# A range read on S3 costs a round trip of about 30 ms, as much as 1 MiB of transfer, so smaller gaps are read through.
_FAR_BUFFER_BYTES, _LOCAL_BUFFER_BYTES = 1024 * 1024, 64 * 1024


def fingerprint(info: fs.FileInfo) -> str:
    """Size and modification time, known from a listing without opening the file."""
    return f"{info.size}-{info.mtime_ns}"


def uri_of(info: fs.FileInfo, below: str) -> str:
    """The listed file's URI, given the URI ``below`` that was listed."""
    return f"{storage.scheme(below)}{info.path}"


def is_image(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def read_images(uri: str, batch_rows: int) -> Iterator[RawBatch]:
    """Each image below ``uri``: its relative path without suffix is the product_id, its folder's name the category. Files with
    an image suffix and an unusable name are rejected."""
    root = storage.source(uri)
    unusable: list[tuple[str, str]] = []
    files = [f for f in storage.list_files(root, unusable=unusable) if is_image(f.path)]
    rejects = [(path, RejectCode.BAD_VALUE, why, path) for path, why in sorted(unusable) if is_image(path)]
    if rejects:
        nothing = {c: pa.array([], pa.string()) for c in (schema.PRODUCT_ID, schema.CATEGORY)}
        yield RawBatch(nothing, no_attributes(0), pa.array([], pa.string()), reject_table(rejects), image_table([]))
    for start in range(0, len(files), batch_rows):
        part = files[start : start + batch_rows]
        uris = [uri_of(f, root) for f in part]
        paths = [PurePosixPath(u[len(root) + 1 :]) for u in uris]
        columns = {
            schema.PRODUCT_ID: pa.array([str(p.with_suffix("")) for p in paths], pa.string()),
            schema.CATEGORY: pa.array([p.parent.name or None for p in paths], pa.string()),
        }
        images = image_table([(u, None, None, fingerprint(f)) for u, f in zip(uris, part)])
        yield RawBatch(columns, no_attributes(len(part)), pa.array(uris, pa.string()), reject_table([]), images)


def read_tar(info: fs.FileInfo, uri: str, mapping: Mapping, batch_rows: int) -> Iterator[RawBatch]:
    """Members with the same name up to the first dot form one product: an image, and its .json, .txt (title), .cls (category).

    The product_id is the mapped JSON field, otherwise that name. Of several images of one name the first is used, 1.png even
    after 1.mask.png, and the others are rejected (DUPLICATE_KEY); other fields of the sample (1.mask.png beside 1.png, 1.npy)
    are ignored.
    """
    system, path = storage.filesystem(uri)
    rows, sources, images, rejects, held, aside = [], [], [], [], 0, 0
    buffer = _FAR_BUFFER_BYTES if storage.scheme(uri) else _LOCAL_BUFFER_BYTES
    with system.open_input_file(path) as native, io.BufferedReader(native, buffer) as file:
        for key, members in _groups(file, uri, rejects):
            where = f"{uri}#{key}"
            held += sum(m.size for m in members if not is_image(m.name) and m.size <= _MAX_METADATA_BYTES)
            pictures = sorted((m for m in members if is_image(m.name)), key=_is_part)
            image, others = pictures[0] if pictures else None, pictures[1:]
            fields = [m for m in others if image and _is_part(m) and not _is_part(image)]
            rejects += [_second(uri, m.name, image.name) for m in others if image and m not in fields]
            aside += len(fields) + sum(not is_image(m.name) and _suffix(m) not in _ABOUT for m in members if image)
            if image is None:
                rejects.append((where, RejectCode.MISSING_FIELD, "no image of this name", where))
            elif (row := _about(file, key, members, mapping, where, rejects)) is not None:
                rows.append(row)
                sources.append(where)
                at = f"{fingerprint(info)}:{image.offset_data}+{image.size}"
                images.append((f"{uri}#{image.name}", image.offset_data, image.size, at))
            if len(rows) + len(rejects) >= batch_rows or held >= MAX_BATCH_BYTES:
                yield replace(batch_of_dicts(rows, sources, mapping, rejects, images), num_aside=aside)
                rows, sources, images, rejects, held, aside = [], [], [], [], 0, 0
    if rows or rejects:
        yield replace(batch_of_dicts(rows, sources, mapping, rejects, images), num_aside=aside)


def _is_part(member: tarfile.TarInfo) -> bool:
    """Whether an image's name has more than a format after the first dot (1.mask.png): another field of a WebDataset sample."""
    return "." in _suffix(member)


def _suffix(member: tarfile.TarInfo) -> str:
    return member.name.rpartition("/")[2].partition(".")[2].lower()


def _second(uri: str, name: str, first: str) -> RejectRow:
    where = f"{uri}#{name}"
    return where, RejectCode.DUPLICATE_KEY, f"a second image of one name: {first} was used", where


class _Capped:
    """A seekable file whose single reads are bounded: tarfile reads extended headers at whatever size they claim."""

    def __init__(self, file: io.BufferedReader):
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_READ_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)


def _groups(file: io.BufferedReader, uri: str, rejects: list[RejectRow]) -> Iterator[tuple[str, list[tarfile.TarInfo]]]:
    """Consecutive plain files of one name. Links, devices, sparse files and names that lead outside are rejected."""
    key, members = "", []
    try:
        with tarfile.open(fileobj=cast(IO[bytes], _Capped(file)), mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # or a shard of a million members would keep them all
                if member.isdir():
                    continue
                where = f"{uri}#{member.name}".encode("utf-8", "backslashreplace").decode()
                if why := _unfit(member):
                    rejects.append((where, RejectCode.MALFORMED_ROW, why, where))
                    continue
                folder, _, name = member.name.rpartition("/")
                mine = f"{folder}/{name.partition('.')[0]}".lstrip("/")
                if mine != key and members:
                    yield key, members
                    members = []
                key = mine
                members.append(member)
            end = tar.offset
        file.seek(end)
        if any(file.read(tarfile.BLOCKSIZE)):  # tarfile takes an unreadable header, except the first, for the end
            raise tarfile.ReadError(f"no member header at byte {end}")
    except (tarfile.TarError, RecursionError, ValueError, OverflowError) as e:
        rejects.append((uri, RejectCode.MALFORMED_ROW, f"the archive cannot be read beyond {key!r}: {e}", uri))
    if members:
        yield key, members


def _unfit(member: tarfile.TarInfo) -> str:
    """Why a member is not read; "" if it is."""
    if not member.isreg() or member.sparse is not None:
        return "a link, device or sparse file in an archive is not read"
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return "its name leads outside the archive"
    if not storage.is_text(member.name):
        return "its name is not UTF-8"
    return "a negative size" if member.size < 0 else ""


def _about(
    file: io.BufferedReader, key: str, members: list[tarfile.TarInfo], mapping: Mapping, where: str, rejects: list[RejectRow]
) -> dict[str, object] | None:
    """The group's metadata as one row; None after recording why there is none."""
    row: dict[str, object] = {}
    resume = file.tell()
    for member in members:
        suffix = _suffix(member)
        if suffix not in _ABOUT:
            continue
        if member.size > _MAX_METADATA_BYTES:
            rejects.append((where, RejectCode.TOO_MANY_BYTES, f".{suffix} of {member.size} bytes", where))
            return None
        file.seek(member.offset_data)
        try:
            text = file.read(member.size).decode("utf-8-sig")
            if suffix == "json":
                fields = JSON.decode(text)
                if not isinstance(fields, dict):
                    raise ValueError("not an object")
                row = {**row, **fields}
            else:
                row.setdefault(mapping.theirs(schema.TITLE if suffix == "txt" else schema.CATEGORY), text)
        except (ValueError, RecursionError) as e:
            rejects.append((where, RejectCode.MALFORMED_ROW, f".{suffix}: {e}"[:200], where))
            return None
    file.seek(resume)
    row.pop(mapping.theirs(IMAGE), None)
    row.setdefault(mapping.theirs(schema.PRODUCT_ID), key)
    return row


def expand(pattern: str) -> list[str]:
    """``x-{000..009}.tar`` -> its ten names; a pattern without braces is one name. Raises UsageError for a bad range."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    bounds = re.fullmatch(r"([0-9]{1,9})\.\.([0-9]{1,9})", found[1])
    if not bounds or int(bounds[1]) > int(bounds[2]) or int(bounds[2]) - int(bounds[1]) >= 1_000_000:
        raise UsageError(
            f"feed.uri={pattern}: {{{found[1]}}} is not a range; write it like {{000..009}}, at most a million shards"
        )
    width = len(bounds[1])
    names = (f"{pattern[: found.start()]}{i:0{width}d}" for i in range(int(bounds[1]), int(bounds[2]) + 1))
    return [name + rest for name in names for rest in expand(pattern[found.end() :])]
