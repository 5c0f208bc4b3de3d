"""A shop's own photos of people, such as campaigns and customers' pictures, without a crawl: the set `posts`."""

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema, storage
from w2w.errors import JobFailed, Reject, RejectCode, UsageError
from w2w.garments.records import files_below, parse_json, read_text
from w2w.images.sniff import SUFFIXES
from w2w.ingest.images import is_web
from w2w.mining.sets.records import PublicSet
from w2w.mining.sets.rows import ANCHORS, DIGEST_CHARS, PHOTO_SCHEMA, in_batches

PHOTO, POST, PRODUCTS, LINKS, ADDRESS, STYLE = COLUMNS = ("photo", "post", "products", "links", "url", "style")
_CALLED = {
    PHOTO: ("photo", "image", "image_url", "picture", "file"),
    POST: ("post", "post_id", "id"),
    PRODUCTS: ("products", "product_ids", "product_id", "skus", "sku"),
    LINKS: ("links", "product_urls", "product_links"),
    ADDRESS: ("url", "permalink"),
    STYLE: ("style", "label"),
}
_BETWEEN = re.compile(r"[|;,\s]+")  # of several products or links in one cell
_LINES = (".jsonl", ".ndjson")
_MOST_CHARS = 4096  # of a cell


@dataclass(frozen=True)
class Post:
    """``products``: the names that the list has for what is worn; ``links``: addresses of products. ``reject``: what is wrong
    with the line."""

    name: str
    image_uri: str
    products: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    url: str | None = None
    style: str | None = None
    reject: Reject | None = None


class OwnPosts(PublicSet):
    """A CSV or JSON lines with a column for the photo: a file beside the list, or below ``images``, or a URL. Where there are
    any, columns for the post's name, what is worn (product ids, values of the attribute ``set.key``, or addresses), links to
    products, the post's own address and its style; several values in a cell are separated by | ; , or spaces, or a list of
    JSON. Or a folder: each photo is a post."""

    def __init__(self, root: Path, images: Path | None, columns: Mapping[str, str] | None):
        self._root, self._images, self._columns = root, images or (root.parent if root.is_file() else root), dict(columns or {})
        if strange := [name for name in self._columns if name not in COLUMNS]:
            raise UsageError(f"set.columns: {strange[0]!r} is none of {', '.join(COLUMNS)}")

    def posts(self) -> Iterator[Post]:
        """In the order of the list. Raises UsageError for a file without a column of photos, JobFailed for an empty one."""
        if self._root.is_file():
            text = read_text(self._root)
            if not text.strip():
                raise JobFailed(f"set.path={self._root}: is empty")
            yield from self._of_json(text) if self._root.suffix.lower() in _LINES else self._listed(text)
            return
        for file in files_below(self._root, SUFFIXES):
            yield Post(file.relative_to(self._root).as_posix(), str(file))

    def _of_json(self, text: str) -> Iterator[Post]:
        lines = [(f"{self._root.name}:{n}", line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
        names = list(dict.fromkeys(name for where, line in lines for name in self._record(where, line) or ()))
        at = {ours: names[i] for ours in COLUMNS if (i := self._place(ours, names)) is not None}
        for where, line in lines:
            record = self._record(where, line)
            if record is None:
                yield Post(where, "", reject=Reject(RejectCode.MALFORMED_ROW, "it is no JSON object"))
            else:
                yield self._post(where, {ours: _cell(record.get(theirs)) for ours, theirs in at.items()})

    def _record(self, where: str, line: str) -> dict[str, Any] | None:
        try:
            value = parse_json(line, where)
        except UsageError:
            return None
        return value if isinstance(value, dict) else None

    def _listed(self, text: str) -> Iterator[Post]:
        lines = csv.reader(io.StringIO(text, newline=""))
        try:
            names = [name.strip() for name in next(lines, [])]
            at = {ours: i for ours in COLUMNS if (i := self._place(ours, names)) is not None}
            for values in lines:
                where = f"{self._root.name}:{lines.line_num}"
                if len(values) == len(names):
                    yield self._post(where, {ours: values[i].strip() for ours, i in at.items()})
                elif values:
                    why = f"{len(values)} values for {len(names)} columns"
                    yield Post(where, "", reject=Reject(RejectCode.MALFORMED_ROW, why))
        except csv.Error as e:
            raise UsageError(f"{self._root}, line {lines.line_num}: not valid CSV: {e}") from e

    def _post(self, where: str, cells: Mapping[str, str]) -> Post:
        if any(len(cell) > _MOST_CHARS or not storage.is_text(cell) for cell in cells.values()):
            return Post(where, "", reject=Reject(RejectCode.BAD_VALUE, "a value is too long, or holds half a character"))
        photo = cells[PHOTO]
        if not photo:
            return Post(where, "", reject=Reject(RejectCode.MISSING_FIELD, "it names no photo"))
        if not is_web(photo):
            inside = (self._images / photo).resolve()
            if not inside.is_relative_to(self._images.resolve()):
                return Post(where, "", reject=Reject(RejectCode.BAD_VALUE, f"{photo!r} leads out of {self._images}"))
            photo = str(inside)
        worn, links = (tuple(filter(None, _BETWEEN.split(cells.get(name, "")))) for name in (PRODUCTS, LINKS))
        links += tuple(filter(is_web, worn))
        worn = tuple(name for name in worn if not is_web(name))
        name = cells.get(POST) or cells[PHOTO]
        return Post(name, photo, worn, links, cells.get(ADDRESS) or None, cells.get(STYLE) or None)

    def _place(self, ours: str, names: list[str]) -> int | None:
        given = self._columns.get(ours)
        theirs = [given] if given else [name for name in _CALLED[ours] if name in names]
        if theirs and theirs[0] in names:
            return names.index(theirs[0])
        if given or ours == PHOTO:
            asked = repr(given) if given else f"of {', '.join(_CALLED[PHOTO])}"
            raise UsageError(
                f"{self._root}, line 1: no column {asked}: name one by set.columns.{ours}; it has {', '.join(names)[:200]}"
            )
        return None


def _cell(value: Any) -> str:
    """A value of JSON as a cell of a CSV."""
    if isinstance(value, list):
        return " ".join(map(_cell, value))
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True)
class Catalog:
    """The shop's products by the name that a list has for them, and by their address; ``unknown``: counts those of which it has
    neither."""

    named: Mapping[str, str]
    at: Mapping[str, str]
    unknown: Counter[str] = field(default_factory=Counter)

    def ids_of(self, post: Post) -> list[str]:
        """What is worn; a name that the shop does not have stands as it is: `w2w mine` rejects it by that name."""
        self.unknown[PRODUCTS] += sum(name not in self.named for name in post.products)
        self.unknown[LINKS] += sum(link not in self.at for link in post.links)
        worn = {self.named.get(name, name) for name in post.products}
        return sorted(worn | {self.at[link] for link in post.links if link in self.at})


def post_rows(posts: Iterable[Post], sold: Catalog, catalog: str, version: str, batch_rows: int = 20_000) -> Iterator[pa.Table]:
    """PHOTO_SCHEMA and the reject of lines that name no photo."""

    def row(post: Post) -> dict:
        post_id, worn = f"{catalog}/{post.name}", sold.ids_of(post)
        told = (post.name, post.image_uri, worn, post.links, post.url, post.style)
        digest = ids.digest(version, told, length=DIGEST_CHARS)
        return dict.fromkeys(PHOTO_SCHEMA.names) | {
            schema.KEY: f"{post_id}@{digest}",
            schema.POST_ID: post_id,
            schema.URL: post.url,
            schema.IMAGE_URI: post.image_uri,
            schema.PRODUCT_IDS: worn,
            schema.PRODUCT_URLS: list(post.links),
            schema.STYLE: post.style,
            schema.ROW_DIGEST: digest,
            ANCHORS: [],
            schema.REJECT_CODE: post.reject and post.reject.code.value,
            schema.REJECT_DETAIL: post.reject and post.reject.detail,
        }

    said = pa.schema([*PHOTO_SCHEMA, (schema.REJECT_CODE, pa.string()), (schema.REJECT_DETAIL, pa.string())])
    yield from in_batches(map(row, posts), said, batch_rows)


def would_be_rejected(rows: pa.Table) -> Counter[str]:
    """By code: the lines that are rejected, and those whose photo is a file that is not there."""
    said = pc.fill_null(rows.column(schema.REJECT_CODE), "")
    codes = Counter({one["values"]: one["counts"] for one in pc.value_counts(said).to_pylist() if one["values"]})
    photos = rows.filter(pc.equal(said, "")).column(schema.IMAGE_URI)
    gone = sum(not is_web(uri) and not os.path.isfile(uri) for uri in photos.to_pylist())
    return codes + Counter({RejectCode.NOT_FOUND.value: gone})
