"""The catalog as the search sees it: one row per product, in arrays; and the rows that a merchandiser's rules allow."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.config import nearest
from w2w.errors import UsageError
from w2w.garments.taxonomy import BAG, BOTTOM, CATEGORIES, DRESS, HAT, OUTER, SHOES, TOP
from w2w.recommend.house import BRAND, CATEGORY, PRODUCT, House, Selector

SEPARATES, DRESSED = FORMS = ((TOP, BOTTOM, SHOES), (DRESS, SHOES))  # the minimal outfits
EXTRAS = (OUTER, BAG, HAT)
ORDER = (DRESS, TOP, BOTTOM, SHOES, OUTER, BAG, HAT)
CODE = {name: code for code, name in enumerate(CATEGORIES)}

CALLED = "called"  # the shop's own category of a product
ROWS = pa.schema(
    [
        *(schema.PRODUCTS.schema.field(c).with_nullable(True) for c in (schema.PRODUCT_ID, schema.TITLE, schema.BRAND)),
        *(schema.PRODUCTS.schema.field(c) for c in (schema.PRICE, schema.CURRENCY, schema.URL, schema.ATTRIBUTES)),
        schema.PRODUCTS.schema.field(schema.IMAGE_ID),
        (schema.CATEGORY, pa.string()),  # one of the seven
        (CALLED, pa.string()),
    ]
)
# how shops say that something is unavailable: https://schema.org/ItemAvailability and Google's product data specification
_GONE = {"outofstock", "soldout", "discontinued", "unavailable", "no", "false", "preorder", "presale", "backorder"}
_THERE = {"instock", "available", "yes", "true", "limitedavailability", "onlineonly", "instoreonly"}
_MOST_KEYS = 20  # named in an error message
_AVAILABILITY = ("availability", "stock", "in_stock", "quantity", "inventory")


@dataclass(frozen=True)
class Shelf:
    """N products, sorted by id: ``rows`` (ROWS), ``group_N`` (rows with the same number are the same product, or
    near-duplicates). ``unseen``: by class, the number of products that are not here because they have no vector."""

    rows: pa.Table
    group_N: np.ndarray
    unseen: Mapping[str, int] = field(default_factory=dict)
    class_N: np.ndarray = field(init=False)  # of CATEGORIES
    price_N: np.ndarray = field(init=False)  # NaN if unknown
    brand_N: np.ndarray = field(init=False)  # a number per brand, -1 if unknown

    def __post_init__(self):
        codes = pc.index_in(self.rows.column(schema.CATEGORY), pa.array(CATEGORIES)).to_numpy().astype(np.int8)
        price = self.rows.column(schema.PRICE).to_numpy().astype(np.float64)
        brands = pc.utf8_lower(pc.utf8_trim_whitespace(self.rows.column(schema.BRAND)))
        brands = pc.if_else(pc.equal(brands, ""), pa.scalar(None, pa.string()), brands).combine_chunks().dictionary_encode()
        brand = pc.fill_null(brands.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        for name, value in (("class_N", codes), ("price_N", price), ("brand_N", brand)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return self.rows.num_rows

    def category(self, row: int) -> str:
        return CATEGORIES[self.class_N[row]]

    def ids(self, rows: np.ndarray | Sequence[int]) -> list[str]:
        return self.rows.column(schema.PRODUCT_ID).take(pa.array(rows, pa.int64())).to_pylist()

    def find(self, product_ids: Sequence[str]) -> np.ndarray:
        """Rows of these products, -1 if there is none."""
        at = pc.index_in(pa.array(product_ids, pa.string()), value_set=self.rows.column(schema.PRODUCT_ID).combine_chunks())
        return pc.fill_null(at, -1).to_numpy(zero_copy_only=False).astype(np.int64)

    def mask(self, selector: Selector) -> np.ndarray:
        """bool (N,): the products that a selector matches. A category is one of the seven, or the shop's own."""
        found = np.ones(len(self), bool)
        for key, values in selector.wanted:
            columns = [self.rows.column(c) for c in _COLUMNS[key]] if key in _COLUMNS else [self.attribute(key)]
            texts = [pc.utf8_trim_whitespace(column) for column in columns]
            texts = texts if key == PRODUCT else [pc.utf8_lower(text) for text in texts]
            found &= np.logical_or.reduce(
                [pc.is_in(text, value_set=pa.array(values, pa.string())).to_numpy() for text in texts]
            )
        return found

    def attributes(self) -> list[str]:
        """Names of all attributes of products."""
        maps = self.rows.column(schema.ATTRIBUTES).combine_chunks()
        return sorted(pc.unique(maps.keys).to_pylist())

    def need_attributes(self, option: str, names: Sequence[str]) -> None:
        """Raises UsageError for one that no product has."""
        known = self.attributes() if names else []
        for name in names:
            if name not in known:
                raise UsageError(f"{option}: no product has an attribute {name!r}.{_keys_like(name, known)}")

    def attribute(self, name: str) -> pa.ChunkedArray:
        """What it says of each product, null for nothing."""
        return pc.map_lookup(self.rows.column(schema.ATTRIBUTES), name, "first")


_COLUMNS = {PRODUCT: (schema.PRODUCT_ID,), BRAND: (schema.BRAND,), CATEGORY: (schema.CATEGORY, CALLED)}


def in_stock(values: pa.Array | pa.ChunkedArray, least: float = 1.0) -> np.ndarray:
    """bool (N,): what an availability column says. A number counts pieces, of which there must be ``least``; schema.org's terms
    and the like mean no; missing values count as available."""
    told = pc.unique(values).to_pylist()
    good = pa.array([text for text in told if _is_there(text, least)], pa.string())
    return pc.is_in(values.cast(pa.string()), value_set=good).to_numpy(zero_copy_only=False)


def _is_there(text: str | None, least: float) -> bool:
    if text is None or not text.strip():
        return True
    number = _number(text)
    return _word(text) not in _GONE if number is None else number >= least


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _word(text: str) -> str:
    return re.sub(r"[\W_]", "", text.rstrip("/").rpartition("/")[2]).lower()


@dataclass(frozen=True)
class Applied:
    """House rules applied to a shelf. ``allowed_N``: what may be recommended at all, one per group; ``banned_N``: what no
    answer shows, not even as the given item; pins and bans with the products they apply beside (None: all), pins with the
    classes that they are for, and in ``pinned`` what each says; ``told``: sentences for a person; ``reason_N``: of each product
    the one of ``reasons`` for which it is not allowed, -1 for none."""

    house: House
    allowed_N: np.ndarray
    banned_N: np.ndarray
    pins: tuple[tuple[np.ndarray | None, np.ndarray, tuple[str, ...]], ...]
    bans: tuple[tuple[np.ndarray, np.ndarray], ...]
    never: tuple[tuple[np.ndarray, np.ndarray], ...]
    left_out: dict[str, int]
    pinned: tuple[Selector, ...] = ()
    told: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    reason_N: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int16))


def apply_house(house: House, shelf: Shelf, known_ids: pa.Array | None = None) -> Applied:
    """``known_ids``: current and former products. Raises UsageError naming the line of a rule about an attribute that no
    product has, a product that never existed, or a price when products have several currencies."""
    _check(house, shelf, known_ids)
    left_out: dict[str, int] = {}
    allowed = np.ones(len(shelf), bool)

    reasons: list[str] = []
    reason_N = np.full(len(shelf), -1, np.int16)

    def keep(why: str, mask: np.ndarray, says: str) -> None:
        if gone := int((allowed & ~mask).sum()):
            left_out[why] = left_out.get(why, 0) + gone
            reason_N[allowed & ~mask] = len(reasons)
            reasons.append(says)
        np.logical_and(allowed, mask, out=allowed)

    banned = np.zeros(len(shelf), bool)
    for ban in house.bans:
        if ban.beside is None:
            banned |= (what := shelf.mask(ban.what))
            keep("banned", ~what, f"banned by line {ban.what.line}")
    keep("sold_out", _stock(house, shelf), "sold out")
    keep("price", _price(house, shelf), _priced_out(house))
    for selector in house.only:
        here = Selector(tuple(part for part in selector.wanted if part[0] == CATEGORY))
        keep("filtered", ~shelf.mask(here) | shelf.mask(selector), f"not what line {selector.line} asks for")
    others = (
        *(s for ban in house.bans for s in (ban.what, ban.beside)),
        *house.only,
        *(s for two in house.never_together for s in two),
    )
    told = [f"{house.name}, line {s.line}: no product is {s}" for s in others if s is not None and not shelf.mask(s).any()]
    told += _idle_stock(house, shelf)
    pins, kept = [], []
    for pin in house.pins:
        mask = shelf.mask(pin.what)
        beside = None if pin.beside is None else shelf.mask(pin.beside)
        if not (mask & allowed).any():
            told.append(f"{house.name}, line {pin.what.line}: nothing that may be shown is {pin.what}: the pin is ignored")
        elif beside is None or beside.any():
            pins.append((beside, mask & allowed, tuple(CATEGORIES[c] for c in np.unique(shelf.class_N[mask & allowed]))))
            kept.append(pin.what)
    pinned = np.logical_or.reduce([np.zeros(len(shelf), bool), *(mask for _, mask, _ in pins)])
    keep("near_duplicates", _first_of_groups(shelf, allowed, pinned) | pinned, "near-duplicates of others")
    bans = [(shelf.mask(b.beside), shelf.mask(b.what)) for b in house.bans if b.beside is not None]
    never = [(shelf.mask(a), shelf.mask(b)) for a, b in house.never_together]
    pinned_by, sentences, causes = tuple(kept), tuple(told), tuple(reasons)
    rules = (tuple(pins), tuple(bans), tuple(never))
    return Applied(house, allowed, banned, *rules, left_out, pinned_by, sentences, causes, reason_N)


def _check(house: House, shelf: Shelf, known_ids: pa.Array | None) -> None:
    attributes, sold = shelf.attributes(), shelf.rows.column(schema.PRODUCT_ID).combine_chunks()
    known = sold if known_ids is None else pa.chunked_array([sold, known_ids])
    wishes = [s for w in (*house.pins, *house.bans) for s in (w.what, w.beside) if s is not None]
    for selector in (*house.only, *wishes, *(s for two in house.never_together for s in two)):
        for key, values in selector.wanted:
            if key not in _COLUMNS and key not in attributes:
                house.refuse(selector.line, f"no product has an attribute {key!r}.{_keys_like(key, attributes)}")
            there = pc.is_in(pa.array(values if key == PRODUCT else [], pa.string()), value_set=known).to_pylist()
            if strange := [v for v, is_there in zip(values, there) if not is_there]:
                product_ids = sorted(pc.unique(known).to_pylist())
                house.refuse(selector.line, f"there is no product {strange[0]!r}.{nearest(strange[0], product_ids)}")
    if house.stock_attribute and house.stock_attribute not in attributes:
        known = nearest(house.stock_attribute, attributes)
        raise UsageError(f"{house.name}: stock.attribute: no product has an attribute {house.stock_attribute!r}.{known}")
    currencies = sorted(filter(None, pc.unique(shelf.rows.column(schema.CURRENCY)).to_pylist()))
    asks = house.price_min is not None or house.price_max is not None or house.total_max is not None
    if asks and not house.currency and len(currencies) > 1:
        raise UsageError(f"{house.name}: products have prices in {', '.join(currencies)}: say which with price.currency")


def _keys_like(key: str, attributes: Sequence[str]) -> str:
    """The keys of a selector, the nearest first, to end an error message."""
    known = sorted({*_COLUMNS, *attributes})
    meant = nearest(key, known) if difflib.get_close_matches(key, known, n=1) else ""
    first = difflib.get_close_matches(key, known, n=_MOST_KEYS, cutoff=0.0)
    return f"{meant} Allowed: {', '.join(first)}{', ...' if len(known) > len(first) else ''}."


def _stock(house: House, shelf: Shelf) -> np.ndarray:
    if house.any_stock:
        return np.ones(len(shelf), bool)
    attributes = shelf.attributes()
    names = [house.stock_attribute] if house.stock_attribute else [a for a in attributes if a.lower() in _AVAILABILITY]
    return np.logical_and.reduce(
        [np.ones(len(shelf), bool), *(in_stock(shelf.attribute(name), house.stock_min) for name in names)]
    )


def _idle_stock(house: House, shelf: Shelf) -> list[str]:
    """A sentence where the rule about stock can leave nothing out: its attribute is about something else."""
    if not house.stock_attribute:
        return []
    values = [v for v in pc.unique(shelf.attribute(house.stock_attribute)).to_pylist() if v and v.strip()]
    if any(_number(v) is not None or _word(v) in _GONE | _THERE for v in values):
        return []
    example = f" (for example {values[0]!r})" if values else ""
    return [
        f"{house.name}: stock: no value of {house.stock_attribute!r} is a number of pieces or says sold out{example}: "
        "it leaves nothing out"
    ]


def _price(house: House, shelf: Shelf) -> np.ndarray:
    """Products without a price, or in another currency, are in no price range."""
    good = np.ones(len(shelf), bool)
    if house.price_min is None and house.price_max is None and house.total_max is None and not house.currency:
        return good
    if house.currency:
        currency = pc.utf8_upper(shelf.rows.column(schema.CURRENCY))
        good &= pc.fill_null(pc.equal(currency, house.currency), False).to_numpy()
    low, high = house.price_min or 0.0, min(v for v in (house.price_max, house.total_max, np.inf) if v is not None)
    return good & (shelf.price_N >= low) & (shelf.price_N <= high)


def _priced_out(house: House) -> str:
    if house.price_min is None and house.price_max is None and house.total_max is not None:
        return "dearer than an outfit may be (total.max)"
    return "outside the price range" + (f", or not in {house.currency}" if house.currency else "")


def _first_of_groups(shelf: Shelf, allowed: np.ndarray, pinned: np.ndarray) -> np.ndarray:
    """bool (N,): of the allowed rows of a class and group one, the first or a pinned one."""
    first = np.zeros(len(shelf), bool)
    rows = np.flatnonzero(allowed)
    rows = rows[np.argsort(~pinned[rows], kind="stable")]
    _, at = np.unique(np.stack([shelf.class_N[rows].astype(np.int64), shelf.group_N[rows]]), axis=1, return_index=True)
    first[rows[at]] = True
    return first
