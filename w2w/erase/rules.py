"""What is left of a table's rows when products, posts and pictures are erased.

Every text and binary column of `schema.TABLES` has one meaning by its name (``COLUMNS``), wherever it stands. A row whose own
columns name something erased goes. In lists the entry goes; where the list is what the row says (the items of an outfit), the
row. A few columns are names that other rows share (``SHARED``): they become null, or another name.
"""

import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.crawl.records import record_without

NEVER = "erased"  # in place of a name that other rows share
_AT_ONCE = 200  # texts in one regular expression
# a shop's id that free text can be searched for: shorter ones, and words, are everywhere
_TELLING = re.compile(r"(?=.*\d).{4,}|.{16,}", re.DOTALL)


class Kind(Enum):
    """What a column may hold of what is erased."""

    PRODUCT = auto()  # ids of products
    POST = auto()  # ids of posts
    KEY = auto()  # ids of whatever kind: pictures, garments, pairs, queries
    PLACE = auto()  # addresses
    TEXT = auto()  # free text, which may name it
    RECORD = auto()  # the JSON of a page's records
    ZIPPED = auto()  # the same, compressed
    DATA = auto()  # goes with its row alone
    NONE = auto()  # names, versions and figures of ours


def _named(kind: Kind, names: str) -> dict[str, Kind]:
    return dict.fromkeys(names.split(), kind)


COLUMNS: dict[str, Kind] = {
    **_named(Kind.PRODUCT, "product_id product_ids same_picture card"),
    **_named(Kind.POST, "post_id"),
    **_named(
        Kind.KEY, "image_id anchor_image_id owner_id item_id garment_id pair_id outfit_id modified_of question_id query_id"
    ),
    **_named(Kind.KEY, "cluster_id duplicate_of url_id content_digest images"),
    **_named(Kind.PLACE, "url uri image_uri source_uri found_on product_urls tdm_policy"),
    **_named(Kind.TEXT, "title brand attributes group_id component_id cut_from about detail key source"),
    **_named(Kind.TEXT, "said robots_rule tdm_rule"),  # patterns and addresses of a host's rules
    **_named(Kind.RECORD, "records"),
    **_named(Kind.ZIPPED, "content"),
    **_named(Kind.DATA, "bytes crop grid counts vector etag last_modified fingerprint image_fingerprint row_digest swatch"),
    **_named(Kind.NONE, "attribute value availability beside category code column colour gender size currency crop_source"),
    **_named(Kind.NONE, "data_digest evaluation_id feed file format group host how index_version kind labelled metric model"),
    **_named(
        Kind.NONE,
        "model_version original_label owner_kind protocol read_by reason replaced role rule run_id search_version site",
    ),
    **_named(Kind.NONE, "permission_id robots_signal x_robots_tag content_signal tdm_reservation owner_says"),
    **_named(Kind.NONE, "check_id severity slot split stage stage_version state style verdict warning_id"),
}
# (table, column) of one value: null, or a name that is nobody's
SHARED = {
    ("splits", schema.COMPONENT_ID),
    ("splits", schema.CUT_FROM),
    ("duplicates", schema.CLUSTER_ID),
    ("duplicates", schema.DUPLICATE_OF),
    ("frontier", schema.FOUND_ON),
    ("frontier", schema.DETAIL),
    ("pages", schema.DETAIL),
    ("pages", schema.CONTENT),
    ("pages", schema.SAID),
    *(("permissions", c) for c in (schema.ROBOTS_RULE, schema.TDM_RULE, schema.TDM_POLICY)),
    ("similar", schema.CARD),
    ("images", schema.SOURCE_URI),
    *(("products", c) for c in (schema.TITLE, schema.BRAND, schema.GROUP_ID, schema.URL, schema.IMAGE_URI)),
    *(("posts", c) for c in (schema.URL, schema.IMAGE_URI)),
}
# a feed's, a site's or an export's name
_NAMES = {
    (t, schema.SOURCE)
    for t in [
        "absences",
        "change_files",
        "rechecks",
        "detections",
        "pairs",
        "outfits",
        "questions",
        "evaluations",
        "similar",
        "exported",
    ]
}
_SIMILAR = schema.SIMILAR_PRODUCTS.name
_STAY = {schema.GROUP_ID, schema.CUT_FROM}  # null would say something else
WHOLE = {"outfits": {schema.ITEMS}, "questions": {schema.ITEMS, schema.ANSWERS}}
ENTRIES = {schema.OUTFITS_LIST}  # lists whose entries go with anything in them


@dataclass(frozen=True)
class Marks:
    """What is sought: plain ids, by kind; ``keys`` are those of pictures and of all that was made of them."""

    products: frozenset[str] = frozenset()
    posts: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    places: frozenset[str] = frozenset()
    cards: frozenset[str] = frozenset()  # of lists of similar products: products on them count as changed
    unlisted: frozenset[str] = frozenset()  # products whose list goes, as its picture does: other lists lose them, too
    salt: str = ""  # of the names that stand for those others share

    def __bool__(self) -> bool:
        return bool(self.products or self.posts or self.keys or self.places)

    @cached_property
    def _patterns(self) -> list[re.Pattern[str]]:
        """What may stand beside an id of the shop's, an address and a key of ours differs."""
        telling = {text for text in self.products | self.posts if _TELLING.fullmatch(text)}
        found = _compiled(telling, r"(?<![\w-])", r"(?![\w-])")
        found += _compiled(self.keys, r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])")
        return found + _compiled(self.places, r"(?<![A-Za-z0-9])", r"(?![^\s\"'<>)\],;\\])")

    @cached_property
    def _quoted(self) -> list[re.Pattern[str]]:
        short = {text for text in self.products | self.posts if not _TELLING.fullmatch(text)}
        return _compiled(short, r"(?:^|(?<=[\"',:|=]))", r"(?=[\"',|@]|$)")

    def in_any(self, text: str) -> bool:
        """Whether any text, of whatever file, names something erased. Ids that tell too little are passed over."""
        return any(pattern.search(text) for pattern in self._patterns)

    def in_text(self, text: str) -> bool:
        """The same of a text that is about products or posts: there an id that tells little counts where it is quoted, or
        parted from the rest as in a key."""
        return self.in_any(text) or any(pattern.search(text) for pattern in self._quoted)

    def has(self, column: str, value: str) -> bool:
        """As ``w2w.table.erased.Erased.has``."""
        of = {schema.PRODUCT_ID: self.products, schema.POST_ID: self.posts, schema.IMAGE_ID: self.keys, schema.URL: self.places}
        return value in of[column] or (column == schema.URL and self.in_text(value))

    def is_in(self, kind: Kind, value: Any) -> bool:
        if value is None or kind in (Kind.DATA, Kind.NONE):
            return False
        if kind == Kind.ZIPPED:
            return self.in_text(_unzipped(value))
        if kind == Kind.RECORD:
            return record_without(value, self.has) != value
        if kind == Kind.PRODUCT:
            return value in self.products
        if kind == Kind.POST:
            return value in self.posts
        if kind == Kind.KEY:
            return value in self.keys or value.partition(":")[0] in self.keys or value in self.products or value in self.posts
        if kind == Kind.PLACE:
            return value in self.places or self.in_any(value)
        return self.in_text(value)


def _compiled(some: Iterable[str], before: str, after: str) -> list[re.Pattern[str]]:
    ordered = sorted(some, key=lambda text: (-len(text), text))
    parts = (ordered[i : i + _AT_ONCE] for i in range(0, len(ordered), _AT_ONCE))
    return [re.compile(f"{before}(?:{'|'.join(map(re.escape, part))}){after}") for part in parts]


def _unzipped(data: bytes) -> str:
    try:
        return zlib.decompress(data).decode("utf-8", "replace")
    except zlib.error:
        return ""


def leaves(name: str, values: pa.Array) -> Iterator[tuple[str, pa.Array, np.ndarray]]:
    """The texts in a column, however deep: their column's name, the values, and the row of each."""
    rows = np.arange(len(values))
    stack = [(name, values, rows)]
    while stack:
        name, values, rows = stack.pop()
        kind = values.type
        if pa.types.is_map(kind):
            start, parents = values.offsets[0].as_py() if len(values) else 0, rows[_parents(values)]
            stack += [(name, part.slice(start, len(parents)), parents) for part in (values.keys, values.items)]
        elif pa.types.is_list(kind):
            stack.append((name, pc.list_flatten(values), rows[pc.list_parent_indices(values).to_numpy(zero_copy_only=False)]))
        elif pa.types.is_struct(kind):
            stack += [(f.name, child, rows) for f, child in zip(kind, values.flatten())]
        elif pa.types.is_string(kind) or pa.types.is_binary(kind):
            yield name, values, rows


def _parents(values: pa.MapArray) -> np.ndarray:
    return np.repeat(np.arange(len(values)), np.diff(values.offsets.to_numpy()))


def kind_of(table: str, column: str) -> Kind:
    """Of a table from outside w2w, a column that is not called as one of ours may be any text."""
    return Kind.NONE if (table, column) in _NAMES else COLUMNS.get(column, Kind.TEXT)


def _in(table: str, marks: Marks) -> Marks:
    return replace(marks, products=marks.products | marks.unlisted) if marks.unlisted and table == _SIMILAR else marks


def named_in(table: str, rows: pa.Table, marks: Marks) -> np.ndarray:
    """bool, shape (n,): the rows that name something erased anywhere."""
    found, marks = np.zeros(rows.num_rows, bool), _in(table, marks)
    for column in rows.column_names:
        values = rows.column(column).combine_chunks()
        for name, leaf, at in leaves(column, values):
            kind = kind_of(table, name)
            if kind not in (Kind.DATA, Kind.NONE) and len(leaf):
                once = leaf.dictionary_encode() if pa.types.is_string(leaf.type) else None
                if once is None:
                    hit = np.fromiter((marks.is_in(Kind.ZIPPED, v) for v in leaf.to_pylist()), bool, len(leaf))
                else:
                    known = np.fromiter((marks.is_in(kind, v) for v in once.dictionary.to_pylist()), bool)
                    hit = np.append(known, False)[pc.fill_null(once.indices, len(known)).to_numpy(zero_copy_only=False)]
                found[at[hit]] = True
    if schema.CARD in rows.column_names and marks.cards:
        found |= pc.is_in(rows.column(schema.CARD), value_set=pa.array(sorted(marks.cards))).to_numpy(zero_copy_only=False)
    return found


def left(table: str, row: dict[str, Any], marks: Marks) -> dict[str, Any] | None:
    """What stays of a row in which something is named: None if it goes."""
    kept, marks = {}, _in(table, marks)
    if table == schema.PRODUCTS.name and row[schema.PRODUCT_ID] not in marks.products:
        row = without_pictures(row, marks)
    if table == schema.SPLITS.name and not _owns(row, marks):
        kept = {schema.OWNER_ID: row[schema.OWNER_ID]}  # a post's id may be a product's
    for column, value in row.items():
        if column in kept:
            continue
        if isinstance(value, list):
            if column in WHOLE.get(table, ()) and _names(column, value, marks):
                return None
            kept[column] = _pruned(column, value, marks)
        elif isinstance(value, str | bytes) and marks.is_in(kind_of(table, column), value):
            if (table, column) not in SHARED:
                return None
            kept[column] = _instead(table, column, value, marks)
        else:
            kept[column] = value
    if table == _SIMILAR:
        kept |= _moved_up(kept, len(row[schema.SIMILAR_LIST]))
        is_short = len(kept[schema.SIMILAR_LIST]) < len(row[schema.SIMILAR_LIST]) and not row[schema.COMPLETE]
        if is_short or row[schema.CARD] in marks.cards:
            kept[schema.CARD] = NEVER  # the next night computes the list anew
    if table == schema.DUPLICATES.name and kept[schema.DUPLICATE_OF] is None:
        kept |= {schema.HOW: None, schema.DISTANCE: None}
    return kept


def _moved_up(row: Mapping[str, Any], length: int) -> dict[str, Any]:
    """A list of similar products of that length again, as after a withdrawal: the spare ones move up."""
    entries = [*row[schema.SIMILAR_LIST], *row[schema.SPARE]]
    return {schema.SIMILAR_LIST: entries[:length], schema.SPARE: entries[length:]}


def _owns(row: Mapping[str, Any], marks: Marks) -> bool:
    kind, owner = row[schema.OWNER_KIND], row[schema.OWNER_ID]
    return owner in (marks.posts if kind == "post" else marks.products)


def _instead(table: str, column: str, value: Any, marks: Marks) -> Any:
    """A name that rows share stays shared; of an address, which named it, nothing stays."""
    if schema.TABLES[table].schema.field(column).nullable and column not in _STAY:
        return None
    if COLUMNS[column] == Kind.PLACE:
        return ""
    return f"{NEVER}-{ids.digest(marks.salt, value)}"


def without_pictures(row: dict[str, Any], marks: Marks) -> dict[str, Any]:
    """A product's row without erased pictures: the next one is the front. Without any it is no longer sold."""
    listed = row[schema.IMAGE_LIST]
    stay = [one for one in listed or [] if one[schema.IMAGE_ID] not in marks.keys]
    stay = [one | {schema.URI: ""} if marks.is_in(Kind.PLACE, one[schema.URI]) else one for one in stay]
    if row[schema.IMAGE_ID] not in marks.keys:
        return row if listed is None else row | {schema.IMAGE_LIST: _placed(stay)}
    front = stay[0] if stay else {schema.IMAGE_ID: None, schema.URI: "", schema.FINGERPRINT: ""}
    front = {ours: front[theirs] or "" for ours, theirs in ((schema.IMAGE_URI, schema.URI), _PRINT)} | {
        schema.IMAGE_ID: front[schema.IMAGE_ID]
    }
    return row | front | {schema.IMAGE_LIST: _placed(stay), schema.ACTIVE: bool(stay) and row[schema.ACTIVE]}


_PRINT = (schema.IMAGE_FINGERPRINT, schema.FINGERPRINT)


def _placed(pictures: list[dict]) -> list[dict]:
    first = {schema.ROLE: schema.FRONT}
    return [one | {schema.POSITION: at} | (first if at == 1 else {}) for at, one in enumerate(pictures, 1)]


def _names(column: str, value: Any, marks: Marks) -> bool:
    """Whether anything in a value is named."""
    if isinstance(value, list | tuple):
        return any(_names(column, one, marks) for one in value)
    if isinstance(value, dict):
        return any(_names(name, one, marks) for name, one in value.items())
    return isinstance(value, str | bytes) and marks.is_in(COLUMNS.get(column, Kind.TEXT), value)


def _pruned(column: str, values: list, marks: Marks) -> list:
    """The entries that name nothing erased themselves, with their own lists pruned; ranks close up."""
    stay: list[Any] = []
    for one in values:
        if isinstance(one, dict):
            deep = column in ENTRIES
            own = {name: value for name, value in one.items() if deep or not isinstance(value, list)}
            if not any(_names(name, value, marks) for name, value in own.items()):
                stay.append({n: _pruned(n, v, marks) if isinstance(v, list) and not deep else v for n, v in one.items()})
        elif column == schema.RECORDS:
            stay += [] if (kept := record_without(one, marks.has)) is None else [kept]
        elif not _names(column, one, marks):
            stay.append(one)
    if len(stay) < len(values) and stay and isinstance(stay[0], dict) and schema.RANK in stay[0]:
        return [one | {schema.RANK: rank} for rank, one in enumerate(stay, 1)]
    return stay


def rewritten(table: schema.Table, rows: pa.Table, marks: Marks) -> tuple[pa.Table, np.ndarray, int]:
    """The rows without what is erased, which of the rows before are gone or changed, and how many are gone."""
    found = named_in(table.name, rows, marks)
    if not found.any():
        return rows, found, 0
    now = [left(table.name, row, marks) for row in rows.filter(pa.array(found)).to_pylist()]
    kept = [row for row in now if row is not None]
    stay = rows.filter(pa.array(~found))
    return pa.concat_tables([stay, pa.Table.from_pylist(kept, schema=rows.schema)]), found, len(now) - len(kept)


def json_without(text: str, marks: Marks) -> str:
    """An entry of a table's log without what names something erased: texts in it become ``NEVER``."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: clean(one) for name, one in value.items()}
        if isinstance(value, list):
            return [clean(one) for one in value]
        if isinstance(value, str) and marks.in_any(value):
            return _nested(value) or NEVER
        return value

    def _nested(value: str) -> str:
        try:
            inner = json.loads(value)
        except ValueError:
            return ""
        return json.dumps(clean(inner)) if isinstance(inner, dict | list) else ""

    return json.dumps(clean(json.loads(text)), separators=(",", ":"))
