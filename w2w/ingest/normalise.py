"""From a feed's text to product rows: values checked and converted, images located, repeats rejected, rows digested."""

import html
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.errors import RejectCode
from w2w.ingest.amounts import LIKE, codes, marks, numbers
from w2w.ingest.digests import SeenKeys, row_digests
from w2w.ingest.headings import letters
from w2w.ingest.images import ImageRoot
from w2w.ingest.pictures import MORE, MORE_TYPE, as_text, more_of
from w2w.ingest.prices import is_within
from w2w.ingest.raw import (
    DELETED,
    FALSE,
    IMAGE,
    IMAGE_SCHEMA,
    PATHS,
    SALE_DATES,
    TEXTS,
    WARNED,
    WARNED_TYPE,
    RawBatch,
    deletes,
    reject_table,
    trimmed,
    warned_array,
    warned_of,
)
from w2w.shown import line

MAX_ID_CHARS, NO_IMAGE = 512, "no image"
_SHOWN_CHARS = 160
_PATH = re.compile(r"\s*[>»|/]\s*")  # between the steps of a category: Apparel > Topwear > Tshirts
_IN_STOCK, _OUT, _PREORDER, _BACKORDER = "in_stock", "out_of_stock", "preorder", "backorder"
_STOCK = dict.fromkeys(["instock", "available", "true", "yes", "instoreonly", "onlineonly", "limitedavailability"], _IN_STOCK)
_STOCK |= dict.fromkeys(["outofstock", "soldout", "unavailable", "notavailable", "discontinued", "false", "no"], _OUT)
_FOREIGN = {  # German, French, Spanish, Italian, Dutch, Polish, Czech
    _IN_STOCK: "auflager lieferbar sofortlieferbar vorratig verfugbar ja enstock disponible oui si disponibile "
    "opvoorraad leverbaar dostepny wmagazynie tak skladem",
    _OUT: "ausverkauft nichtlieferbar nichtvorratig nichtverfugbar nichtauflager nein rupture rupturedestock indisponible "
    "epuise non agotado sinexistencias nodisponible esaurito nondisponibile uitverkocht nietopvoorraad nee niedostepny "
    "nie vyprodano",
}
_STOCK |= {word: ours for ours, words in _FOREIGN.items() for word in words.split()}
_STOCK |= {"preorder": _PREORDER, "presale": _PREORDER, "backorder": _BACKORDER, "onbackorder": _BACKORDER}
STOCK_ORDER = pa.array([_IN_STOCK, _PREORDER, _BACKORDER, _OUT])  # a product is what the first of its variants is
_CONTROL = r"[\x00-\x1f\x7f]"
_BREAK = re.compile(r"</?(?:br|p|div|li|ul|ol|h[1-6]|tr|td|th|table)\b[^<>]*>", re.IGNORECASE)
_TAG = re.compile(
    r"</?(?:a|abbr|b|big|center|del|em|font|i|img|ins|mark|small|span|strike|strong|sub|sup|u)\b[^<>]*>", re.IGNORECASE
)
_SCHEME, _WEB = r"^[A-Za-z][A-Za-z0-9+.-]*:", r"(?i)^https?://[^/?#]"

_PRODUCT_COLUMNS = (
    schema.PRODUCT_ID,
    schema.TITLE,
    schema.BRAND,
    schema.PRICE,
    schema.CURRENCY,
    schema.CATEGORY,
    schema.URL,
    schema.ATTRIBUTES,
)
_NUMBERS = {schema.PRICE, schema.SALE_PRICE, schema.REGULAR_PRICE}
_EXTRA_COLUMNS = (*TEXTS, schema.SALE_PRICE, schema.REGULAR_PRICE)
FEED_SCHEMA = pa.schema(
    [
        *(schema.PRODUCTS.schema.field(name) for name in _PRODUCT_COLUMNS),
        *IMAGE_SCHEMA,
        schema.PRODUCTS.schema.field(schema.ROW_DIGEST),
        pa.field(schema.SOURCE, pa.string(), nullable=False),  # file:line, file:row or archive#name, for a person to look at
        pa.field(WARNED, WARNED_TYPE),  # values that could not be read, and are null
        *(schema.PRODUCTS.schema.field(name) for name in _EXTRA_COLUMNS),
        pa.field(MORE, MORE_TYPE),
    ]
)


DELETIONS = pa.schema([FEED_SCHEMA.field(schema.PRODUCT_ID), FEED_SCHEMA.field(schema.SOURCE)])


@dataclass(frozen=True)
class FeedBatch:
    """Rows in FEED_SCHEMA, and rejects (key, code, detail, source).

    A reject's key is its product_id, so that a product with a bad row still counts as listed; it is the source if there is no
    usable product_id, and for DUPLICATE_KEY, whose product_id belongs to another row.
    """

    rows: pa.Table
    rejects: pa.Table
    absent: frozenset[str] = frozenset()  # columns that the feed does not have
    names: Sequence[str] = ()  # the feed's own
    num_aside: int = 0  # files that belong to a row but are not columns
    num_left_out: int = 0  # rows that are no products of their own
    num_superseded: int = 0  # rows of products of which a later row counts
    num_orphans: int = 0  # rows of variants whose product is not in the feed
    deleted: pa.Table = field(default_factory=DELETIONS.empty_table)  # products that are gone
    num_pictures_out: int = 0  # pictures beyond the most that a product may have
    categories: dict[str, Counter[str]] = field(default_factory=dict)  # ours -> theirs, with the rows of each
    unmapped: Counter[str] = field(default_factory=Counter)  # categories of the feed that its map lacks, with their rows

    @property
    def unread(self) -> Counter[str]:
        """Number of values that could not be read, by column."""
        structs = self.rows.column(WARNED).combine_chunks().flatten()
        return Counter(structs.field(schema.COLUMN).to_pylist())

    def unread_examples(self) -> dict[str, str]:
        """Of each column one value that could not be read: whose it is, and why."""
        lists = self.rows.column(WARNED).combine_chunks()
        columns, _, details = lists.flatten().flatten()
        first = {column: pc.index(columns, column).as_py() for column in pc.unique(columns).to_pylist()}
        whose = self.rows.column(schema.PRODUCT_ID).combine_chunks().take(pc.list_parent_indices(lists))
        return {c: line(f"{whose[at]}: {details[at]}")[:_SHOWN_CHARS] for c, at in first.items()}

    @property
    def num_unreadable(self) -> int:
        """Number of rejects whose product is unknown."""
        without_id = pc.equal(self.rejects.column(schema.KEY), self.rejects.column(schema.SOURCE))
        repeated = pc.equal(self.rejects.column(schema.REJECT_CODE), RejectCode.DUPLICATE_KEY.value)
        return pc.sum(pc.and_not(without_id, repeated)).as_py() or 0

    def refuse(self, mask: pa.Array, code: RejectCode, details: pa.Array, of: str = "rows") -> "FeedBatch":
        """The batch with the rows of ``mask`` rejected, keyed by source, since their ids belong to other rows. ``of``: rows or
        deleted."""
        rows: pa.Table = getattr(self, of)
        source = rows.filter(mask).column(schema.SOURCE)
        codes = pa.repeat(pa.scalar(code.value), len(source))
        rejects = pa.table([source, codes, details.filter(mask), source], schema=self.rejects.schema)
        return replace(self, rejects=pa.concat_tables([self.rejects, rejects]), **{of: rows.filter(pc.invert(mask))})


class _Refusals:
    """The rejected rows of a batch, each with the first reason found."""

    def __init__(self, ids: pa.Array, source: pa.Array):
        self.good = np.ones(len(ids), bool)
        self._ids, self._source = ids, source
        self._rows: list[tuple[str, RejectCode, str, str]] = []

    def add(self, mask: pa.Array, code: RejectCode, detail: str, values: pa.Array | None = None, by_id: bool = True) -> None:
        """Rejects the rows of ``mask`` (null counts as no); ``values`` are quoted after ``detail``."""
        for row in np.flatnonzero(mask.fill_null(False).to_numpy(zero_copy_only=False) & self.good).tolist():
            self.one(row, code, detail if values is None else f"{detail}: {values[row].as_py()[:80]!r}", by_id)

    def one(self, row: int, code: RejectCode, detail: str, by_id: bool = True) -> None:
        if self.good[row]:
            self.good[row] = False
            source = self._source[row].as_py()
            self._rows.append((self._ids[row].as_py() if by_id else source, code, detail, source))

    def table(self) -> pa.Table:
        return reject_table(self._rows)


class _Warnings:
    """What could not be read of the rows of a batch, besides what their reader said."""

    def __init__(self, raw: RawBatch):
        self._count, self._rows = len(raw.source), warned_of(raw)

    def add(self, mask: pa.Array, column: str, detail: str, values: pa.Array) -> None:
        """Notes the rows of ``mask`` (null counts as no); ``values`` are quoted after ``detail``."""
        for row in np.flatnonzero(mask.fill_null(False).to_numpy(zero_copy_only=False)).tolist():
            said = f"{detail}: {values[row].as_py()[:80]!r}"
            self.one(row, column, RejectCode.BAD_VALUE.value, said)

    def one(self, row: int, column: str, code: str, said: str) -> None:
        self._rows.setdefault(row, []).append((column, code, said))

    def array(self) -> pa.Array:
        return warned_array(self._rows, self._count)


@dataclass(frozen=True)
class Reading:
    """How values are meant, where the feed does not say."""

    category_map: Mapping[str, str] = field(default_factory=dict)
    category_default: str = "etc"
    decimal: str = ""  # of prices: ``amounts.decimal_sign``
    currency: str | None = None  # of prices without one
    max_pictures: int = 10
    now: datetime | None = None  # None: a sale price counts whatever its dates
    partial: bool = False  # a row may have no picture: that of its product stays


def normalised(raw: RawBatch, reading: Reading, root: ImageRoot, seen: SeenKeys) -> FeedBatch:
    """The batch's rows in FEED_SCHEMA and all its rejects, including the reader's; the rows' keys are added to ``seen``."""
    count = len(raw.source)
    text = {ours: trimmed(column) for ours, column in raw.columns.items()}
    nothing = pa.nulls(count, pa.string())
    ids, image = text.get(schema.PRODUCT_ID, nothing), text.get(IMAGE, nothing)
    says = text.get(DELETED, nothing)
    gone, refused = deletes(says), _Refusals(ids, raw.source)
    refused.add(ids.is_null(), RejectCode.MISSING_FIELD, "no product_id", by_id=False)
    too_long = pc.greater(pc.utf8_length(ids), MAX_ID_CHARS)
    refused.add(too_long, RejectCode.BAD_VALUE, f"product_id of more than {MAX_ID_CHARS} characters", ids, by_id=False)
    refused.add(pc.match_substring_regex(ids, _CONTROL), RejectCode.BAD_VALUE, "control character in product_id", ids, False)
    price, currency, bad_price = _price(text.get(schema.PRICE, nothing), text.get(schema.CURRENCY, nothing), reading)
    warned = _Warnings(raw)
    unclear = pc.and_not(pc.and_not(says.is_valid(), gone), pc.is_in(pc.utf8_lower(says), value_set=FALSE))
    warned.add(unclear, DELETED, "not like true or false, so the product stays", says)
    warned.add(bad_price, schema.PRICE, f"not like {LIKE[reading.decimal]}", text.get(schema.PRICE, nothing))
    sale, of_sale, bad_sale = _price(text.get(schema.SALE_PRICE, nothing), nothing, reading)
    warned.add(bad_sale, schema.SALE_PRICE, f"not like {LIKE[reading.decimal]}", text.get(schema.SALE_PRICE, nothing))
    if reading.now is not None:
        dates = text.get(SALE_DATES, nothing)
        is_on, no_dates = on_sale(dates, reading.now)
        warned.add(no_dates, SALE_DATES, "not like 2026-11-01T08:00+01:00/2026-12-01T20:00+01:00", dates)
        sale = pc.if_else(is_on, sale, None)
    sale = pc.if_else(pc.greater(sale, 0), sale, None)
    another = pc.and_(price.is_valid(), pc.not_equal(currency, of_sale))  # null where one of the two is not said
    warned.add(
        pc.and_(another, sale.is_valid()),
        schema.SALE_PRICE,
        "in another currency than the price, so that it is none",
        text.get(schema.SALE_PRICE, nothing),
    )
    sale = pc.if_else(pc.fill_null(another, False), None, sale)
    reduced = pc.and_(sale.is_valid(), pc.fill_null(pc.less(sale, price), True))
    sale, regular = pc.if_else(reduced, sale, None), pc.if_else(reduced, price, None)
    price, currency = pc.coalesce(sale, price), pc.coalesce(currency, of_sale)
    availability, no_stock = in_words(text.get(schema.AVAILABILITY, nothing))
    warned.add(
        no_stock,
        schema.AVAILABILITY,
        "not like in stock, out of stock, preorder, backorder",
        text.get(schema.AVAILABILITY, nothing),
    )
    unknown = pc.and_(text.get(schema.CURRENCY, nothing).is_valid(), currency.is_null())
    warned.add(unknown, schema.CURRENCY, "no currency that is known", text.get(schema.CURRENCY, nothing))
    url = text.get(schema.URL, nothing)
    elsewhere = pc.and_not(pc.match_substring_regex(url, _SCHEME), pc.match_substring_regex(url, _WEB))
    no_link = pc.or_(elsewhere, pc.match_substring_regex(url, _CONTROL))
    warned.add(no_link, schema.URL, "not a link", url)
    images = raw.images
    if images is None:
        image = pc.if_else(gone, None, image)
        bare = pc.and_not(image.is_null(), gone)
        if not reading.partial:
            refused.add(bare, RejectCode.MISSING_FIELD, NO_IMAGE)
        refused.add(pc.match_substring_regex(image, _CONTROL), RejectCode.BAD_VALUE, "control character in image", image)
        uris, outside = root.resolve(pc.fill_null(image, "x"))
        for row, code, why in outside:
            refused.one(row, code, why)
        empty = pa.nulls(count, pa.int64())
        fingerprints = root.fingerprints(uris)
        uris, fingerprints = (pc.if_else(bare, "", values) for values in (uris, fingerprints))
        images = pa.table([uris, empty, empty, fingerprints], schema=IMAGE_SCHEMA)
    more, no_place, out = more_of(text.get(schema.IMAGE_LIST, nothing), image, root, reading.max_pictures - 1)
    for row, code, why in no_place:
        warned.one(row, schema.IMAGE_LIST, code, why)
    candidates = np.flatnonzero(refused.good)
    repeated = candidates[~seen.add(ids.take(pa.array(candidates)))]
    for row in repeated.tolist():
        refused.one(row, RejectCode.DUPLICATE_KEY, f"product_id {ids[row].as_py()!r} was listed before", by_id=False)
    category, paths, unmapped = _category(text.get(schema.CATEGORY, nothing), reading)
    columns = {
        schema.PRODUCT_ID: ids,
        schema.TITLE: without_markup(text.get(schema.TITLE, nothing)),
        schema.BRAND: text.get(schema.BRAND, nothing),
        schema.PRICE: price,
        schema.CURRENCY: currency,
        schema.CATEGORY: category,
        schema.URL: pc.if_else(no_link, None, url),
        schema.ATTRIBUTES: raw.attributes,
        **{name: images.column(name).combine_chunks() for name in IMAGE_SCHEMA.names},
    }
    deleted = pa.table([ids, raw.source], schema=DELETIONS.remove_metadata()) if pc.any(gone).as_py() else None
    is_gone = gone.to_numpy(zero_copy_only=False)
    listed = refused.good & ~is_gone
    good = pa.array(listed)
    columns = {name: column.filter(good) for name, column in columns.items()}
    extra = {name: text.get(name, nothing) for name in TEXTS} | {schema.AVAILABILITY: availability}
    extra |= {schema.SALE_PRICE: sale, schema.REGULAR_PRICE: regular, MORE: more}
    extra = {name: column.filter(good) for name, column in extra.items()}
    columns |= extra
    columns[schema.SOURCE] = raw.source.filter(good)
    columns[WARNED] = warned.array().filter(good)
    columns[schema.ROW_DIGEST] = digest_of(columns)
    rows = pa.Table.from_arrays([columns[name] for name in FEED_SCHEMA.names], schema=FEED_SCHEMA)
    rejects, num_out = pa.concat_tables([raw.rejects, refused.table()]), int(out[listed].sum())
    categories = _counted(columns[schema.CATEGORY], pc.fill_null(paths.filter(good), ""))
    counted = {name: getattr(raw, name) for name in ("num_aside", "num_left_out", "num_superseded", "num_orphans")}
    left = {} if deleted is None else {"deleted": deleted.filter(pa.array(refused.good & is_gone))}
    absent = frozenset(FEED_SCHEMA.names) - raw.columns.keys()
    return FeedBatch(
        rows, rejects, absent, num_pictures_out=num_out, categories=categories, unmapped=unmapped, **counted, **left
    )


def digest_of(columns: Mapping[str, pa.Array]) -> pa.Array:
    """The row digest of each row. ``columns``: those of FEED_SCHEMA, whatever the digest was."""
    values = {name: columns[name] for name in (*_PRODUCT_COLUMNS, *IMAGE_SCHEMA.names)}
    beyond = {name: columns[name] for name in _EXTRA_COLUMNS} | {MORE: as_text(columns[MORE])}
    for of in (values, beyond):  # the bits of prices, not their text: they do not depend on the version of any library
        of.update({name: of[name].view(pa.int64()) for name in of.keys() & _NUMBERS})
    return row_digests(list(values.values()), list(beyond.values()))


def without_markup(titles: pa.Array) -> pa.Array:
    """The titles without tags and entities of HTML; null where nothing else is there."""
    marked = pc.fill_null(pc.match_substring_regex(titles, "[<&]"), False)
    if not pc.any(marked).as_py():
        return titles
    texts = [_without_tags(html.unescape(_without_tags(text))) for text in titles.filter(marked).to_pylist()]
    return trimmed(pc.replace_with_mask(titles, marked, pa.array(texts, pa.string())))


def _without_tags(text: str) -> str:
    return re.sub(r"\s+", " ", _TAG.sub("", _BREAK.sub(" ", text))) if "<" in text else text


def _price(price: pa.Array, currency: pa.Array, reading: Reading) -> tuple[pa.Array, pa.Array, pa.Array]:
    """The number, the currency (its own column first; null if unknown), and a mask of the invalid prices."""
    said = codes(pc.coalesce(currency, marks(price)))
    open_ones = pc.and_(said.is_null(), currency.is_null())  # also a kr, which may be that of several countries
    meant = pc.if_else(open_ones, pa.scalar(reading.currency, pa.string()), said)
    number = numbers(price, reading.decimal, meant)
    is_said = pc.or_(number.is_valid(), currency.is_valid())
    return number, pc.if_else(is_said, meant, None), pc.and_(price.is_valid(), number.is_null())


def on_sale(dates: pa.Array, now: datetime) -> tuple[pa.Array, pa.Array]:
    """Whether a sale price with these dates counts now, and a mask of the dates that cannot be read; those do not limit it."""
    said = dates.dictionary_encode()
    found = pa.array([is_within(one, now) for one in said.dictionary.to_pylist()], pa.bool_()).take(said.indices)
    return pc.fill_null(found, True), pc.and_(dates.is_valid(), found.is_null())


def in_words(said: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Our word for it, and a mask of the texts that are none."""
    texts = said.dictionary_encode()
    words = [letters(text.rpartition("/")[2]) for text in texts.dictionary.to_pylist()]
    found = [(_IN_STOCK if word.strip("0") else _OUT) if word.isdecimal() else _STOCK.get(word) for word in words]
    ours = pa.array(found, pa.string()).take(texts.indices)
    return ours, pc.and_(said.is_valid(), ours.is_null())


def _category(theirs: pa.Array, reading: Reading) -> tuple[pa.Array, pa.Array, Counter[str]]:
    """Our category of each row, never null, their path that it was told by, and how many rows have which path that the map
    lacks. Of a path the longest beginning that the map has counts: Apparel > Topwear stands for all below it. Of several paths
    (PATHS between them) the one with the longest such beginning counts, then the longest, then the first."""
    said = theirs.dictionary_encode()
    known = {_steps(key): ours for key, ours in reading.category_map.items()}
    chosen = [_best_path(name.split(PATHS), known) for name in said.dictionary.to_pylist()]
    names = pa.array([name for name, _ in chosen], pa.string())
    paths = names.take(said.indices)
    if not reading.category_map:
        return pc.fill_null(pc.utf8_lower(paths), reading.category_default), paths, Counter()
    ours = pa.array([ours for _, ours in chosen], pa.string()).take(said.indices)
    counts = pc.value_counts(paths.filter(pc.and_(ours.is_null(), paths.is_valid()))).to_pylist()
    unmapped = Counter({one["values"]: one["counts"] for one in counts})
    return pc.fill_null(ours, reading.category_default), paths, unmapped


def _counted(ours: pa.Array, theirs: pa.Array) -> dict[str, Counter[str]]:
    pairs = pa.table([ours, theirs], names=["ours", "theirs"]).group_by(["ours", "theirs"]).aggregate([([], "count_all")])
    found: dict[str, Counter[str]] = {}
    for one in pairs.to_pylist():
        found.setdefault(one["ours"], Counter())[one["theirs"]] = one["count_all"]
    return found


def _steps(category: str) -> tuple[str, ...]:
    return tuple(_PATH.split(category.strip().lower()))


def _best_path(paths: list[str], known: Mapping[tuple[str, ...], str]) -> tuple[str, str | None]:
    found = []
    for path in paths:
        steps = _steps(path)
        depth = next((n for n in range(len(steps), 0, -1) if steps[:n] in known), 0)
        found.append((depth, len(steps), path, known.get(steps[:depth])))
    _, _, path, ours = max(found, key=lambda one: one[:2])
    return path, ours
