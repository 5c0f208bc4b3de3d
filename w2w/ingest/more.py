"""The stage that loads the further pictures of a product, after its front picture."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from w2w import ids, schema
from w2w.errors import TRANSIENT, Reject, RejectCode, attempt
from w2w.images.decode import DecodeLimits, decode_many
from w2w.images.stage import INSPECT_GIVES, INSPECT_PX, inspected
from w2w.ingest.changes import LAST_IMAGE_ID, LAST_IMAGE_LIST, LAST_IMAGE_URI, WITHOUT_PICTURE
from w2w.ingest.images import is_web, load_image
from w2w.ingest.permits import SAID, SAID_LIST, SAID_TYPE
from w2w.ingest.pictures import MORE
from w2w.ingest.raw import WARNED, WARNED_TYPE
from w2w.ingest.stage import KEPT, NEWS, SAME, STANDING, Fetch, fetched
from w2w.table.erased import Erased
from w2w.web.permission import Asked

_THREADS = 32
LOADED = "loaded"  # rows of `images`: the further pictures that the catalog did not have
_FRONT = (schema.IMAGE_ID, schema.IMAGE_URI, schema.IMAGE_FINGERPRINT)
_STATE = (STANDING, NEWS, schema.ROW_DIGEST, schema.BYTES, LAST_IMAGE_ID, LAST_IMAGE_URI, LAST_IMAGE_LIST)
MORE_NEEDS = (*_FRONT, *_STATE, MORE, WARNED, schema.FETCHED_AT, SAID)
MORE_GIVES = pa.schema(
    [
        schema.PRODUCTS.schema.field(schema.IMAGE_LIST),
        schema.PRODUCTS.schema.field(schema.ROW_DIGEST),
        pa.field(LOADED, pa.list_(pa.struct(list(schema.IMAGES.schema)))),
        pa.field(WARNED, WARNED_TYPE),
        pa.field(NEWS, pa.bool_()),
        pa.field(SAID_LIST, SAID_TYPE),
    ]
)


@dataclass
class _Picture:
    """One further picture of row ``row``; ``last``: as the catalog has it."""

    row: int
    position: int
    uri: str
    role: str
    fingerprint: str
    last: dict | None
    image_id: str | None = None
    data: bytes | None = None
    fault: Reject | None = None
    said: Asked | None = None

    def load(self, fetch: Fetch, max_bytes: int) -> None:
        last_id, known = (self.last[schema.IMAGE_ID], self.last[schema.FINGERPRINT]) if self.last else ("", "")
        if is_web(self.uri):
            self.data, self.fingerprint, self.said = fetched(fetch, self.uri, known, bool(last_id))
        elif not (last_id and known and known == self.fingerprint):  # else the same file
            self.data = load_image(self.uri, max_bytes=max_bytes)
        self.image_id = last_id if self.data is None else ids.image_id(self.data)
        self.data = None if self.image_id == last_id else self.data

    def fail(self, fault: Reject) -> None:
        """The picture that this place had before stays, if there was one."""
        self.fault, self.data = fault, None
        self.image_id = self.last[schema.IMAGE_ID] if self.last else None
        self.fingerprint = self.last[schema.FINGERPRINT] if self.last else ""

    def entry(self) -> dict:
        names = (schema.IMAGE_ID, schema.POSITION, schema.URI, schema.ROLE, schema.FINGERPRINT)
        return {name: getattr(self, name) for name in names}


def load_more(rows: pa.Table, *, fetch: Fetch, max_bytes: int, limits: DecodeLimits, erased: Erased = Erased()) -> pa.Table:
    """Adds MORE_GIVES: every picture of the product, those to be stored, and a warning for each that is broken, which costs
    neither the row nor its other pictures. Where one may be there tomorrow, the row's digest says that it has to be asked for
    again."""
    told = {name: rows.column(name).to_pylist() for name in MORE_NEEDS if name != schema.BYTES}
    pictures = [picture for row in range(rows.num_rows) for picture in _pictures(row, told)]
    _load(pictures, fetch, max_bytes)
    for picture in pictures:
        if erased.has(schema.IMAGE_ID, picture.image_id):
            picture.fail(Reject(RejectCode.ERASED, "a picture of it was erased (w2w erase)"))
            picture.image_id = None
    images = _inspect(pictures, limits, told[schema.FETCHED_AT])
    of: list[list[_Picture]] = [[] for _ in range(rows.num_rows)]
    for picture in pictures:
        of[picture.row].append(picture)
    lists, digests, news, warned, said = [], [], [], [], []
    unchanged = rows.column(schema.BYTES).is_null().to_pylist()
    for row, mine in enumerate(of):
        listed = [_front(row, told), *(p.entry() for p in mine if p.image_id)]
        again = any(p.fault.code in TRANSIENT for p in mine if p.fault)
        lists.append(listed)
        digests.append(told[schema.ROW_DIGEST][row] + (WITHOUT_PICTURE if again else ""))
        standing = told[STANDING][row]
        same = unchanged[row] and _same(listed, _before(row, told))
        is_kept = same and standing == KEPT and again
        news.append(None if is_kept or (same and standing == SAME and told[NEWS][row] is None) else True)
        faults = [
            {schema.COLUMN: schema.IMAGE_LIST, schema.REJECT_CODE: str(p.fault.code), schema.REJECT_DETAIL: _said(p, p.fault)}
            for p in mine
            if p.fault
        ]
        warned.append([*(told[WARNED][row] or []), *faults] or None)
        asked = [(told[schema.IMAGE_ID][row], told[schema.IMAGE_URI][row], told[SAID][row])]
        asked += [(p.image_id, p.uri, p.said.to_json()) for p in mine if p.said and not p.fault]
        said.append([dict(zip((schema.IMAGE_ID, schema.URI, SAID), one)) for one in asked if one[2]])
    for name, values in zip(MORE_GIVES.names, (lists, digests, images, warned, news, said)):
        kind = MORE_GIVES.field(name).type
        array = pa.array(values, kind)
        at = rows.schema.get_field_index(name)
        rows = rows.append_column(name, array) if at < 0 else rows.set_column(at, name, array)
    return rows


def _pictures(row: int, told: dict[str, list]) -> list[_Picture]:
    last = {one[schema.URI]: one for one in told[LAST_IMAGE_LIST][row] or []}
    listed = enumerate(told[MORE][row] or [], 2)
    return [
        _Picture(row, n, one[schema.URI], one[schema.ROLE], one[schema.FINGERPRINT], last.get(one[schema.URI]))
        for n, one in listed
    ]


def _load(pictures: list[_Picture], fetch: Fetch, max_bytes: int) -> None:
    if not pictures:
        return
    with ThreadPoolExecutor(min(_THREADS, len(pictures))) as pool:
        for picture, found in zip(pictures, pool.map(lambda p: attempt(p.load, fetch, max_bytes), pictures)):
            if isinstance(found, Reject):
                picture.fail(found)


def _inspect(pictures: list[_Picture], limits: DecodeLimits, fetched_at: list) -> list[list[dict]]:
    """Rows of `images` for each row; a picture that does not decode fails."""
    images: list[list[dict]] = [[] for _ in fetched_at]
    new = [p for p in pictures if p.data is not None]
    if not new:
        return images
    table = pa.table({schema.BYTES: pa.array([p.data for p in new], pa.binary())})
    found = inspected(table, decode_many(table.column(0).to_pylist(), limits, INSPECT_PX), limits).drop_columns([schema.BYTES])
    for picture, said in zip(new, found.to_pylist()):
        if code := said[schema.REJECT_CODE]:
            picture.fail(Reject(RejectCode(code), said[schema.REJECT_DETAIL]))
            continue
        place = {schema.IMAGE_ID: picture.image_id, schema.BYTES: picture.data, schema.SOURCE_URI: picture.uri}
        stamp = {schema.FETCHED_AT: fetched_at[picture.row]}
        images[picture.row].append(place | stamp | {name: said[name] for name in INSPECT_GIVES.names})
    return images


def _front(row: int, told: dict[str, list]) -> dict:
    image_id, uri, fingerprint = (told[name][row] for name in _FRONT)
    return _entry(image_id, uri, fingerprint)


def _entry(image_id: str, uri: str, fingerprint: str | None) -> dict:
    said = {schema.IMAGE_ID: image_id, schema.URI: uri, schema.FINGERPRINT: fingerprint}
    return said | {schema.POSITION: 1, schema.ROLE: schema.FRONT}


def _before(row: int, told: dict[str, list]) -> list[dict]:
    """The pictures that the catalog has; a row of an earlier w2w has its front picture."""
    listed, last_id = told[LAST_IMAGE_LIST][row], told[LAST_IMAGE_ID][row]
    return listed or ([_entry(last_id, told[LAST_IMAGE_URI][row], None)] if last_id else [])


def _same(now: list[dict], before: list[dict]) -> bool:
    """Whether these are the same pictures; the first fingerprint of one is news, as it is for the front."""
    if [_place(one) for one in now] != [_place(one) for one in before]:
        return False
    return all(was[schema.FINGERPRINT] or not one[schema.FINGERPRINT] for one, was in zip(now[1:], before[1:]))


def _place(one: dict) -> tuple:
    return tuple(one[name] for name in (schema.IMAGE_ID, schema.URI, schema.POSITION, schema.ROLE))


def _said(picture: _Picture, fault: Reject) -> str:
    return fault.detail if picture.uri in fault.detail or fault.code == RejectCode.ERASED else f"{picture.uri}: {fault.detail}"
