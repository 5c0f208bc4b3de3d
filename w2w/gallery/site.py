"""Writing the site: missing pictures, data under content-digest names, index.html last."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa

from w2w import schema, storage
from w2w.errors import UsageError
from w2w.gallery.rules import Site, file_of, files_of, image_name
from w2w.report.page import jpeg, small, write_page
from w2w.table.pending import lookup_batches

PAGE = "index.html"
_MARK = '<meta name="generator" content="w2w gallery">'
_OURS = re.compile(r"(data/[a-z]+(-\d+)?-[0-9a-f]{16}\.js|thumbs/[0-9a-f]{2}/[0-9a-f]{16}-\d+\.jpg)")
_APP = Path(__file__).with_name("app.js.j2")
_AT_ONCE = 128  # pictures in memory
_SLOW = 16  # threads: most of the time is spent waiting for S3


@dataclass(frozen=True)
class Written:
    """Names of the existing pictures; counts of new, kept and unreadable ones; bytes written."""

    names: set[str]
    new: int
    kept: int
    unreadable: int
    num_bytes: int


def check_place(out: str) -> None:
    """Raises UsageError if something else is in the site's place: another page, or files that are none of a site's."""
    try:
        found = storage.read_bytes(storage.join(out, PAGE))
    except FileNotFoundError:
        _, root = storage.filesystem(out)
        for file in storage.list_files(out):
            if not _OURS.fullmatch(file.path.removeprefix(root).lstrip("/")):
                raise UsageError(f"--out={out}: has files that 'w2w gallery' did not write; name an empty folder") from None
        return
    if _MARK.encode() not in found:
        raise UsageError(f"--out={out}: has an {PAGE} that 'w2w gallery' did not write; name an empty folder")


def write_pictures(out: str, store: str, images: Iterable[str], others: Mapping[str, bytes], side_px: int) -> Written:
    """Thumbnails of these images of the store, and of ``others`` by name; existing ones are kept."""
    there = set(_listed(out, "thumbs"))
    named = {image_name(image): image for image in images}
    files = {name: file_of(name, side_px) for name in (*named, *others)}
    missing = {name for name, file in files.items() if file not in there}

    def pending() -> Iterator[tuple[str, bytes]]:
        yield from ((name, others[name]) for name in others if name in missing)
        wanted = pa.array(sorted(named[name] for name in missing & named.keys()), pa.string())
        for batch in lookup_batches(store, schema.IMAGES, wanted, [schema.IMAGE_ID, schema.BYTES], batch_rows=_AT_ONCE):
            yield from zip(map(image_name, batch.column(0).to_pylist()), batch.column(1).to_pylist())

    def write(one: tuple[str, bytes]) -> tuple[str, int]:
        name, data = one
        picture = small(data, side_px)
        if picture is None:
            return name, 0
        encoded = jpeg(picture)
        storage.write_bytes(storage.join(out, files[name]), encoded)
        return name, len(encoded)

    sizes: dict[str, int] = {}
    left = pending()
    with ThreadPoolExecutor(_SLOW if storage.is_s3(out) else min(_SLOW, 2 * (os.cpu_count() or 1))) as pool:
        while some := list(islice(left, _AT_ONCE)):
            sizes |= dict(pool.map(write, some))
    names = {name for name in files if name not in missing or sizes.get(name)}
    kept = len(files) - len(missing)
    return Written(names, len(names) - kept, kept, len(files) - len(names), sum(sizes.values()))


def write_site(out: str, site: Site) -> tuple[int, int]:
    """Writes data and page, and removes files of an earlier site that this one lacks; returns bytes written and files
    removed."""
    files, told = files_of(site, _APP.read_bytes())
    for name, data in files.items():
        storage.write_bytes(storage.join(out, name), data)
    page = storage.join(out, PAGE)
    told_text = json.dumps(told, separators=(",", ":"), allow_nan=False)
    write_page(page, "gallery/page.html.j2", title=site.title, app=told["app"], told=told_text, facts=site.facts, site=site)
    stays = {*files, *(file_of(name, site.side_px) for name in site.thumbs)}
    gone = [
        name for folder in ("data", "thumbs") for name in _listed(out, folder) if name not in stays and _OURS.fullmatch(name)
    ]
    with ThreadPoolExecutor(_SLOW) as pool:
        list(pool.map(storage.delete, (storage.join(out, name) for name in gone)))
    return sum(map(len, files.values())), len(gone)


def _listed(out: str, folder: str) -> Iterator[str]:
    for found in storage.list_files(storage.join(out, folder)):
        yield f"{folder}/{found.path.rpartition(f'/{folder}/')[2]}"
