"""From visited pages to tables ``products`` and ``posts``: only new or changed rows.

Reads only committed rows, in an order determined by the pages' URLs, and uses the code of every feed (`w2w.ingest`): repeating
it is a no-op. An image that changes under its URL changes its product, because a crawled product's fingerprint is the image
itself.
"""

import functools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.crawl.frontier import State, url_id
from w2w.crawl.profile import IMAGE, PRODUCT_FIELDS, Profile
from w2w.errors import RejectCode
from w2w.ingest.changes import (
    CURRENT_COLUMNS,
    LAST_IMAGE_ID,
    LAST_IMAGE_URI,
    PICTURE_COLUMNS,
    CurrentProducts,
    LastPictures,
    withdrawn,
)
from w2w.ingest.dicts import batch_of_dicts
from w2w.ingest.digests import SeenKeys, row_digests
from w2w.ingest.images import ImageRoot
from w2w.ingest.normalise import Reading, normalised
from w2w.ingest.permits import Standing, permission, statement_of
from w2w.ingest.raw import Mapping
from w2w.ingest.warnings import WARNINGS, warn
from w2w.table import delta
from w2w.table.current import CurrentRows, current_posts, current_products
from w2w.table.parts import RECEIPT_SCHEMA, Output, write_part
from w2w.table.sink import Committer, Lineage
from w2w.web.permission import Asked, Statement

_BATCH_ROWS = 20_000
_MAX_HOPS = 10
_ENDED = (State.GONE, State.REDIRECTED, State.EXCLUDED)  # a page in one of these states no longer sells anything
_RECORD_SCHEMA = pa.schema([(schema.URL, pa.string()), (schema.RECORDS, pa.string())])
_REJECT_FIELDS = (schema.KEY, schema.REJECT_CODE, schema.REJECT_DETAIL, schema.SOURCE)


@dataclass
class Harvest:
    """The outcome: rows written, by table and kind of change."""

    products: int = 0
    posts: int = 0
    withdrawn: int = 0
    permissions: int = 0
    waiting: int = 0  # records whose image is still to be visited
    rejects: dict[str, int] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)


def harvest(store: str, profile: Profile, lineage: Lineage, use: str = "") -> Harvest:
    """Brings ``products`` and ``posts`` up to date with the site's pages, and ``permissions`` with what was said of its
    pictures, in one commit. ``use``: the owner's word (``UseConfig.told``).

    In memory: about 300 bytes per URL, 500 more of a picture, and the site's records, about 500 bytes each.
    """
    pages = _Pages(store, profile)
    records, ended = pages.records()
    done, sink = Harvest(), _Sink(store, lineage)
    live = _products(store, profile, pages, records, done, sink)
    live_posts = _posts(store, pages, records, done, sink)
    said = pages.permissions(use, lineage.run_id)
    sink.add(Output(schema.PERMISSIONS), said)
    done.permissions = said.num_rows
    if ended.num_rows:
        products = current_products(store, schema.PRODUCTS.schema.names)
        owner = products.column(schema.FEED)
        products = products.filter(pc.fill_null(pc.equal(owner, _owner(profile)), True))
        _withdraw(ended, "product", live, schema.PRODUCTS, products, done, sink)
        _withdraw(ended, "post", live_posts, schema.POSTS, current_posts(store), done, sink)
    done.versions = sink.commit()
    return done


@functools.lru_cache(maxsize=4096)
def _asked(text: str) -> Asked:
    """Few places differ in what is said there."""
    return Asked.from_json(text)


class _Pages:
    """Each page's last visit, and its last successful one. Pages are identified by ``url_id``, since links spell URLs in many
    ways."""

    def __init__(self, store: str, profile: Profile):
        self._store, self._profile = store, profile
        self._last: dict[str, tuple[int, str, str, str]] = {}  # url_id -> visit, state, reason, detail
        self._read: dict[str, int] = {}  # url_id -> visit that fetched it
        self._images: dict[str, tuple[int, str]] = {}  # url_id -> visit, image id
        self._moved: dict[str, tuple[int, str]] = {}  # url_id -> visit, url
        self._product_at: dict[str, str] = {}  # url_id of a product page -> product id
        self._said: dict[str, dict[str, tuple[int, str]]] = {}  # url_id -> name as of Asked.heard -> visit, what it was told
        self._urls: dict[str, str] = {}  # url_id of a picture -> url
        columns = (
            schema.URL_ID,
            schema.URL,
            schema.SAID,
            schema.KIND,
            schema.VISIT,
            schema.STATE,
            schema.REASON,
            schema.DETAIL,
            schema.IMAGE_ID,
            schema.LINKS,
        )
        for batch in self._batches(columns):
            for row in batch.to_pylist():
                self._note(row)

    def _batches(self, columns) -> Iterator[pa.Table]:
        listed = delta.parts(delta.open_table(self._store, schema.PAGES), site=self._profile.name)
        return delta.read_batches(self._store, schema.PAGES, columns, listed)

    def _note(self, row: dict) -> None:
        url, visit, state = row[schema.URL_ID], row[schema.VISIT], row[schema.STATE]
        if visit >= self._last.get(url, (-1,))[0]:
            self._last[url] = (visit, state, row[schema.REASON], row[schema.DETAIL] or "")
        if row[schema.SAID]:
            self._hear(url, visit, _asked(row[schema.SAID]))
        if row[schema.KIND] == IMAGE:
            self._urls[url] = row[schema.URL]
        if state == State.FETCHED:
            self._read[url] = max(visit, self._read.get(url, -1))
            if row[schema.KIND] == IMAGE and visit >= self._images.get(url, (-1,))[0]:
                self._images[url] = (visit, row[schema.IMAGE_ID])
        elif state == State.REDIRECTED and row[schema.LINKS] and visit >= self._moved.get(url, (-1,))[0]:
            self._moved[url] = (visit, row[schema.LINKS][0][schema.URL])

    def _hear(self, url: str, visit: int, asked: Asked) -> None:
        """Of each header, robots.txt and tdmrep.json the newest that anything is known of counts."""
        known = self._said.setdefault(url, {})
        for name, told in asked.heard().items():
            if visit >= known.get(name, (-1, ""))[0]:
                known[name] = (visit, told)

    def permissions(self, use: str, run_id: str) -> pa.Table:
        """Rows of ``permissions`` for the site's pictures of which something else is said now than what stands."""
        standing, owner = Standing(self._store), _owner(self._profile)
        pictures = [(image_id, self._urls[url], url) for url, (_, image_id) in sorted(self._images.items())]
        image_ids, uris = (pa.array([one[n] for one in pictures], pa.string()) for n in (0, 1))
        made = []
        for (image_id, uri, url), at in zip(pictures, standing.find(image_ids, uris).tolist()):
            now = Statement.of({name: told for name, (_, told) in self._said.get(url, {}).items()}, use)
            stood = statement_of(standing.rows[at]) if at >= 0 else None if url in self._said else Statement()
            if now != stood:
                made.append(permission(image_id, uri, owner, now, run_id))
        return pa.Table.from_pylist(made, schema=schema.PERMISSIONS.schema)

    def records(self) -> tuple[pa.Table, pa.Table]:
        """(records of live pages, records of ended pages): url and one record's JSON, sorted."""
        here, ended = [_RECORD_SCHEMA.empty_table()], [_RECORD_SCHEMA.empty_table()]
        for batch in self._batches((schema.URL_ID, schema.URL, schema.VISIT, schema.STATE, schema.RECORDS)):
            urls, visits = batch.column(schema.URL_ID).to_pylist(), batch.column(schema.VISIT).to_pylist()
            states = batch.column(schema.STATE).to_pylist()
            newest = [s == State.FETCHED and self._read.get(u) == v for u, v, s in zip(urls, visits, states)]
            over = [n and self._last[u][1] in _ENDED for n, u in zip(newest, urls)]
            for kept, wanted in ((ended, over), (here, [n and not o for n, o in zip(newest, over)])):
                rows = batch.filter(pa.array(wanted, pa.bool_()))
                lists = rows.column(schema.RECORDS).combine_chunks()
                parents = pc.list_parent_indices(lists)
                kept.append(pa.table([rows.column(schema.URL).take(parents), pc.list_flatten(lists)], schema=_RECORD_SCHEMA))
        order = [(name, "ascending") for name in _RECORD_SCHEMA.names]
        return pa.concat_tables(here).sort_by(order), pa.concat_tables(ended).sort_by(order)

    def end_of(self, url: str) -> str:
        """The canonical URL at the end of this one's redirects."""
        for _ in range(_MAX_HOPS):
            page = self._id(url)
            if self._last.get(page, (0, ""))[1] != State.REDIRECTED or page not in self._moved:
                break
            url = self._moved[page][1]
        return self._profile.key(url)

    def sells(self, url: str, product_id: str) -> None:
        """Records that this page sells the product; the first one counts."""
        self._product_at.setdefault(self._id(url), product_id)

    def product_at(self, url: str) -> str | None:
        """The product sold on this page."""
        return self._product_at.get(self._id(url))

    def _id(self, url: str) -> str:
        return url_id(self._profile.key(url))

    def image(self, url: str) -> tuple[str | None, RejectCode | None, str]:
        """(image id, None, "") or (None, reject code, a sentence); (None, None, "") if it was not visited yet."""
        end = self._id(self.end_of(url))
        if end in self._images:
            return self._images[end][1], None, ""
        if end not in self._last:
            return None, None, ""
        _, state, reason, detail = self._last[end]
        code = RejectCode(reason) if reason in set(RejectCode) else RejectCode.NOT_FOUND
        return None, code, detail or f"{state}: {reason}"


class _Sink:
    """Rows collected for one commit."""

    def __init__(self, store: str, lineage: Lineage):
        self._store, self._lineage, self.run_id = store, lineage, lineage.run_id
        self._receipts: list[dict] = []
        before = delta.read(store, schema.REJECTS, [schema.KEY], stage=lineage.stage)
        self._rejected = set(before.column(schema.KEY).to_pylist())

    def add(self, output: Output, rows: pa.Table) -> None:
        if rows.num_rows:
            self._receipts += write_part(self._store, output, rows, self._lineage.run_id)

    def reject(self, rows: list[tuple[str, RejectCode, str, str]], done: Harvest) -> None:
        """Adds a reject (id, code, detail, source), once per page and code."""
        keyed = {f"{name}@{ids.digest(code, source)}": (code, detail, source) for name, code, detail, source in rows}
        new = {key: said for key, said in keyed.items() if key not in self._rejected}
        for code, *_ in keyed.values():
            done.rejects[str(code)] = done.rejects.get(str(code), 0) + 1
        self._rejected |= set(new)
        extra = {
            schema.STAGE: self._lineage.stage,
            schema.STAGE_VERSION: self._lineage.stage_version,
            schema.RUN_ID: self._lineage.run_id,
            schema.REJECTED_AT: time.time_ns() // 1000,
        }
        listed = [
            dict(zip(_REJECT_FIELDS, (key, str(code), detail, source))) | extra for key, (code, detail, source) in new.items()
        ]
        self.add(Output(schema.REJECTS), pa.Table.from_pylist(listed, schema=schema.REJECTS.schema))

    def commit(self) -> dict[str, int]:
        if not self._receipts:
            return {}
        outputs = [WARNINGS, Output(schema.PERMISSIONS), Output(schema.POSTS), Output(schema.PRODUCTS)]
        committer = Committer(self._store, outputs, self._lineage, every_s=float("inf"))
        committer.add(pa.Table.from_pylist(self._receipts, schema=RECEIPT_SCHEMA))
        committer.commit()
        return {t.name: committer.version(t) for t in (schema.POSTS, schema.PRODUCTS)}


def _of_kind(records: pa.Table, kind: str) -> Iterator[list[tuple[str, dict]]]:
    """(page URL, fields) of the records of one kind, in batches."""
    chosen = records.filter(pc.match_substring(records.column(schema.RECORDS), json.dumps({"record": kind})[1:-1]))
    for start in range(0, chosen.num_rows, _BATCH_ROWS):
        part = chosen.slice(start, _BATCH_ROWS).to_pylist()
        read = ((row[schema.URL], json.loads(row[schema.RECORDS])) for row in part)
        yield [(url, fields) for url, fields in read if fields["record"] == kind]


def _products(store: str, profile: Profile, pages: _Pages, records: pa.Table, done: Harvest, sink: _Sink) -> set[str]:
    """Writes new and changed products; returns the ids of all that the site sells now. If a product's new picture is broken, it
    keeps the old one, and its other changes are written."""
    owner = _owner(profile)
    current = CurrentProducts(current_products(store, CURRENT_COLUMNS), owner)
    last = LastPictures(CurrentRows(store, schema.PRODUCTS).batches(PICTURE_COLUMNS))
    seen, live = SeenKeys(), set()
    for batch in _of_kind(records, "product"):
        before = last.of(pa.array([fields["product_id"][0] for _, fields in batch], pa.string())).to_pylist()
        rows, sources, rejects = [], [], []
        images: list[tuple[str, int | None, int | None, str]] = []
        for (url, fields), picture in zip(batch, before):
            product_id, image_uri = fields["product_id"][0], fields["image"][0]
            live.add(product_id)
            pages.sells(fields["url"][0], product_id)
            pages.sells(url, product_id)
            image_id, code, why = pages.image(image_uri)
            if code:
                rejects.append((product_id, code, f"its image: {why}", url))
                image_uri, image_id = picture[LAST_IMAGE_URI], picture[LAST_IMAGE_ID]
            if image_id:
                rows.append(_flat(fields))
                sources.append(url)
                images.append((image_uri, None, None, image_id))
            elif not code:
                done.waiting += 1
        raw = batch_of_dicts(rows, sources, Mapping({}, None), [], images)
        reading = Reading(profile.category_map, profile.category_default, ".")  # prices as `w2w.ingest.prices` gives them
        feed = normalised(raw, reading, ImageRoot("https://images.invalid"), seen)
        others = current.others(feed.rows.column(schema.PRODUCT_ID).combine_chunks())
        said = pc.binary_join_element_wise("the product belongs to feed '", others, "'", "")
        feed = feed.refuse(others.is_valid(), RejectCode.DUPLICATE_KEY, said)
        refused = feed.rejects.to_pylist()
        rejects += [
            (r[schema.KEY], RejectCode(r[schema.REJECT_CODE]), r[schema.REJECT_DETAIL], r[schema.SOURCE]) for r in refused
        ]
        adopted = pa.array(current.unowned(feed.rows.column(schema.PRODUCT_ID).combine_chunks()))
        new = feed.rows.filter(pc.or_(pc.invert(current.unchanged(feed.rows)), adopted))
        sink.reject(rejects, done)
        new = _stamped(new, schema.IMAGE_FINGERPRINT, owner)
        sink.add(WARNINGS, warn(new, run_id=sink.run_id))
        sink.add(Output(schema.PRODUCTS), new)
        done.products += new.num_rows
    return live


def _flat(fields: dict) -> dict:
    """A record as one feed row: single values unchanged, further fields joined, since they become attributes."""
    names = {name for name in fields if name != "record"}
    return {n: fields[n][0] if n in PRODUCT_FIELDS else ", ".join(fields[n]) for n in sorted(names) if fields[n]}


def _owner(profile: Profile) -> str:
    """The owner of the site's products; no feed.id has this form."""
    return f"site:{profile.name}"


def _stamped(rows: pa.Table, image_column: str, owner: str) -> pa.Table:
    """With image_id, active, fetched_at and owner."""
    n = rows.num_rows
    rows = rows.append_column(schema.FEED, pa.repeat(pa.scalar(owner), n))
    rows = rows.append_column(schema.IMAGE_ID, rows.column(image_column))
    rows = rows.append_column(schema.ACTIVE, pa.repeat(pa.scalar(True), n))
    return rows.append_column(schema.FETCHED_AT, pa.repeat(pa.scalar(time.time_ns() // 1000, schema.TIME), n))


def _posts(store: str, pages: _Pages, records: pa.Table, done: Harvest, sink: _Sink) -> set[str]:
    """Writes new and changed posts; returns the ids of all that the site shows now. A link to a known product page counts as
    that product."""
    current = current_posts(store)
    active = current.filter(current.column(schema.ACTIVE))
    known = dict(zip(active.column(schema.POST_ID).to_pylist(), active.column(schema.ROW_DIGEST).to_pylist()))
    seen: set[str] = set()
    live: set[str] = set()
    for batch in _of_kind(records, "post"):
        rows, rejects = [], []
        for url, fields in batch:
            post_id, image_uri = fields["post_id"][0], fields["image"][0]
            live.add(post_id)
            image_id, code, why = pages.image(image_uri)
            if post_id in seen:
                rejects.append((post_id, RejectCode.DUPLICATE_KEY, f"post_id {post_id!r} was seen on another page", url))
            elif image_id:
                seen.add(post_id)
                rows.append(_post_row(pages, fields, image_id))
            elif code:
                rejects.append((post_id, code, f"its image: {why}", url))
            else:
                done.waiting += 1
        new = [row for row in rows if known.get(row[schema.POST_ID]) != row[schema.ROW_DIGEST]]
        now = {schema.ACTIVE: True, schema.FETCHED_AT: time.time_ns() // 1000}
        sink.reject(rejects, done)
        sink.add(Output(schema.POSTS), pa.Table.from_pylist([row | now for row in new], schema=schema.POSTS.schema))
        done.posts += len(new)
    return live


def _post_row(pages: _Pages, fields: dict, image_id: str) -> dict:
    urls = sorted({pages.end_of(u) for u in fields.get("product_urls", [])})
    known = {product_id for u in urls if (product_id := pages.product_at(u))}
    row = {
        schema.POST_ID: fields["post_id"][0],
        schema.URL: fields["url"][0],
        schema.IMAGE_ID: image_id,
        schema.IMAGE_URI: fields["image"][0],
        schema.PRODUCT_IDS: sorted({*fields.get("product_ids", []), *known}),
        schema.PRODUCT_URLS: urls,
    }
    if style := fields.get("style"):  # without one, the digest equals that of earlier versions
        row[schema.STYLE] = style[0]
    texts = [json.dumps(value, sort_keys=True) for value in row.values()]
    return row | {schema.ROW_DIGEST: row_digests([pa.array([text]) for text in texts])[0].as_py()}


def _withdraw(ended: pa.Table, kind: str, live: set[str], table: schema.Table, current: pa.Table, done: Harvest, sink: _Sink):
    """Deactivates products or posts whose pages have ended and that no other page shows."""
    key = table.key[0]
    gone = {fields[key][0] for batch in _of_kind(ended, kind) for _, fields in batch} - live
    wanted = pc.and_(
        pc.is_in(current.column(key), value_set=pa.array(sorted(gone), pa.string())), current.column(schema.ACTIVE)
    )
    rows = withdrawn(current.filter(wanted))
    sink.add(Output(table), rows)
    done.withdrawn += rows.num_rows
