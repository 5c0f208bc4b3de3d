"""What is a fault, and the sentence that says so. Arrow and NumPy in, findings out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.check.classes import MAD_TO_SD
from w2w.classes import CATEGORIES, ETC
from w2w.errors import RejectCode
from w2w.mining.components import components
from w2w.report.cards import price_text
from w2w.shown import without_secrets

HIGH, MEDIUM, LOW = "high", "medium", "low"
GROUP, OFFERED = "group", "offered"

LEAST_PX = 250  # "Apparel: at least 250 x 250 pixels": Google's product data specification, image_link
_LEAST_SHARPNESS = 40.0  # of 750 real pictures none has less (63 at least); blurred by 1.5 px at 256 px, 95 % have
_LEAST_EDGES = 0.03  # sharpness over contrast: a sharp picture of a white shirt on white has little of either
_LEAST_FILLED = 0.003
_PLAIN_BITS = 8  # of a perceptual hash: fewer occur in single-colour pictures, which are all alike
_SAME_CELL = 16  # of 255, in the cell that differs most: one design in two colours has one perceptual hash
# products with one front picture, and their categories, of a placeholder; fewer where the picture is plain: a mark on a ground
_MANY, _SEVERAL, _CATEGORIES = 10, 5, 3
_SEVERAL_PLAIN, _PLAIN = 3, 0.05
_LEAST_PRICED, _NAMED = 20, 5
_Z = 3.5  # modified z-score (Iglewicz and Hoaglin 1993, "How to detect and handle outliers", p. 11)
_LEAST_FACTOR = 3.0  # to the usual price: less is no outlier, however alike the others
_EXPECTED = 0.8  # of the products have it: then one without it is told
_LEAST_IN_ALL, _RARE = 200, 2
_LEAST_OF_CLASS, _MOST_CLASSES = 20, 500  # products, of which fewer do not say what a category looks like; categories judged
SURE, ODD = 0.5, 4.0  # margin and robust deviations from which another category is told (tests/bench/check_swaps.py)
HOUSE_STYLE = 0.5  # of the products are shown only worn: then that is how this shop shows them
_SHOWN_OF_EACH = 4
# other refusals, such as robots.txt or HTTP 403, say nothing of what customers see
_NO_PAGE = (
    RejectCode.NOT_FOUND,
    RejectCode.WRONG_TYPE,
    RejectCode.FETCH_FAILED,
    RejectCode.TOO_SLOW,
    RejectCode.BLOCKED_URL,
)

FOUND = pa.schema(
    [
        f
        for f in schema.CHECKS.schema
        if f.name not in (schema.CHECK_ID, schema.URL, schema.SINCE, schema.CHECKED_AT, schema.RUN_ID)
    ]
)


@dataclass(frozen=True)
class Kind:
    """A kind of finding. ``needs``: what it looks at beside products: pictures, vectors, looks, links."""

    severity: str
    title: str
    says: str
    needs: str = ""


KINDS = {
    "no_picture": Kind(HIGH, "No picture", "Nothing to see, nothing to find: no search by picture can show them."),
    "placeholder": Kind(
        HIGH,
        "Placeholder pictures",
        "One flat colour, or one front picture on ten products and more, on five and more of three categories, or a plain "
        "one on three of two.",
        "pictures",
    ),
    "broken_link": Kind(HIGH, "Broken links", "Customers who follow it find no page, or the front page of the shop.", "links"),
    "zero_price": Kind(HIGH, "Nothing to pay", "A price of zero or less."),
    "wrong_category": Kind(
        MEDIUM,
        "Picture contradicts category",
        "Among all other products, those that look like it are sold in another category. Some are rightly in theirs: a wide "
        "top that looks like a dress.",
        "vectors",
    ),
    "sale_price": Kind(MEDIUM, "Sale price is not lower", "Customers would see a reduction that is none."),
    "price_outlier": Kind(
        MEDIUM, "Unusual prices", "Far from the usual price of the category: a lost point, another currency?"
    ),
    "shared_picture": Kind(MEDIUM, "One picture on several products", "Variants of one group are not counted.", "pictures"),
    "blurred": Kind(MEDIUM, "Blurred pictures", "Out of focus, or scaled up from a small one.", "pictures"),
    "tiny": Kind(MEDIUM, "Tiny pictures", "Too few pixels for a product page.", "pictures"),
    "unreadable_value": Kind(MEDIUM, "Values that could not be read", "As the feed of the last night had them."),
    "missing_value": Kind(LOW, "Missing values", "Most other products of the catalog have them."),
    "rare_category": Kind(LOW, "Rare categories", "Perhaps a misspelling of another one."),
    "only_worn": Kind(LOW, "No picture of the garment alone", "As a detector sees it, which errs on some sets.", "looks"),
}
_BY_ABOUT = ("missing_value", "unreadable_value")  # a product may have several


def found(
    kind: str, products: Sequence[str], details: Sequence[str], images: Sequence, about: Sequence | None = None
) -> pa.Table:
    """FOUND of one kind."""
    num = len(products)
    columns = [[kind] * num, [KINDS[kind].severity] * num, products, about or [None] * num, details]
    columns.append([[one for one in some if one] for some in images])
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, FOUND)], schema=FOUND)


def of_rows(kind: str, goods: pa.Table, details: Sequence[str], about: Sequence | None = None) -> pa.Table:
    """FOUND for rows of ``goods``, each shown by its front picture."""
    images = [[image] for image in goods.column(schema.IMAGE_ID).to_pylist()]
    return found(kind, goods.column(schema.PRODUCT_ID).to_pylist(), details, images, about)


def without_picture(goods: pa.Table) -> pa.Table:
    rows = goods.filter(goods.column(schema.IMAGE_ID).is_null())
    return of_rows("no_picture", rows, ["It has no picture."] * rows.num_rows)


def prices(goods: pa.Table) -> pa.Table:
    """Zero prices, sale prices that are not lower, and outliers.

    ``goods``: price, sale_price, regular_price, currency, category, and OFFERED: the feed's sale price where it is none.
    """
    price, currency = goods.column(schema.PRICE), goods.column(schema.CURRENCY)
    zero = goods.filter(pc.fill_null(pc.less_equal(price, 0), False))
    told = [of_rows("zero_price", zero, [f"It costs {_money(r)}." for r in _rows(zero)])]
    regular, sale = goods.column(schema.REGULAR_PRICE), goods.column(schema.SALE_PRICE)
    as_it_is = pc.fill_null(pc.greater_equal(sale, regular), False)
    refused = pc.fill_null(pc.greater_equal(goods.column(OFFERED), price), False)
    wrong = goods.filter(pc.or_(as_it_is, refused))
    details = []
    for row in _rows(wrong):
        asked = row[OFFERED] if row[schema.SALE_PRICE] is None else row[schema.SALE_PRICE]
        usual = row[schema.PRICE] if row[schema.SALE_PRICE] is None else row[schema.REGULAR_PRICE]
        said = [price_text(p, row[schema.CURRENCY]) for p in (asked, usual)]
        details.append(f"Its sale price is {said[0]}, its price {said[1]}.")
    told.append(of_rows("sale_price", wrong, details))
    rows = np.flatnonzero(
        pc.fill_null(pc.and_(pc.greater(price, 0), pc.is_finite(price)), False).to_numpy(zero_copy_only=False)
    )
    if not len(rows):
        return pa.concat_tables(told)
    names = pc.binary_join_element_wise(goods.column(schema.CATEGORY), pc.fill_null(currency, ""), "\0").take(pa.array(rows))
    codes = names.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    logs = np.log(price.to_numpy(zero_copy_only=False)[rows])
    far, usual = outliers(logs, codes)
    some = goods.take(pa.array(rows[far]))
    details = []
    for row, middle in zip(_rows(some), np.exp(usual[far])):
        times = row[schema.PRICE] / middle
        by = f"{times:,.0f} times" if times > 1 else f"1/{1 / times:,.0f} of"
        details.append(
            f"It costs {_money(row)}, {by} the usual {price_text(middle, row[schema.CURRENCY])} of {row[schema.CATEGORY]!r}."
        )
    return pa.concat_tables([*told, of_rows("price_outlier", some, details)])


def not_judged(goods: pa.Table) -> str:
    """Why the prices of some products cannot be unusual; "" if all are judged."""
    priced = goods.filter(pc.fill_null(pc.greater(goods.column(schema.PRICE), 0), False))
    of = (
        priced.select([schema.CATEGORY, schema.CURRENCY])
        .group_by([schema.CATEGORY, schema.CURRENCY])
        .aggregate([([], "count_all")])
    )
    few = of.filter(pc.less(of.column("count_all"), _LEAST_PRICED))
    if not few.num_rows:
        return ""
    names = sorted({name or "none" for name in few.column(schema.CATEGORY).to_pylist()})
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    said = f"{pc.sum(few.column('count_all')).as_py():,} products of {', '.join(names[:_NAMED])}{more} are not judged"
    return f"{said}: fewer than {_LEAST_PRICED} of a category and currency"


def outliers(values_N: np.ndarray, codes_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which values are far from the median of their group, by its median absolute deviation: bool (N,); and these medians.
    Groups of fewer than 20 have none."""
    order = np.argsort(codes_N, kind="stable")
    far, middle_N = np.zeros(len(values_N), bool), np.zeros(len(values_N))
    for some in np.split(order, np.flatnonzero(np.diff(codes_N[order])) + 1):
        values = values_N[some]
        middle = np.median(values)
        spread = max(MAD_TO_SD * np.median(np.abs(values - middle)), np.log(_LEAST_FACTOR) / _Z)
        middle_N[some] = middle
        far[some] = (np.abs(values - middle) > _Z * spread) & (len(some) >= _LEAST_PRICED)
    return far, middle_N


def broken_links(goods: pa.Table, asked: pa.Table) -> pa.Table:
    """Products whose link led to no page. ``asked``: url, code, detail, of table `links`."""
    bad = asked.filter(pc.is_in(asked.column(schema.REJECT_CODE), value_set=pa.array([code.value for code in _NO_PAGE])))
    at = pc.index_in(goods.column(schema.URL), value_set=bad.column(schema.URL))
    at = pc.if_else(goods.column(schema.URL).is_valid(), at, pa.scalar(None, pa.int32()))
    rows = goods.filter(at.is_valid())
    details = bad.column(schema.REJECT_DETAIL).take(at.drop_null()).to_pylist()
    return of_rows("broken_link", rows, [f"Its link: {detail}." for detail in details])


def missing(goods: pa.Table, has: dict[str, str]) -> pa.Table:
    """Values that a product lacks and most others have. ``has``: name of a value -> bool column of ``goods``."""
    told = [FOUND.empty_table()]
    for name, column in has.items():
        there = goods.column(column)
        share = pc.mean(there).as_py() or 0.0
        if _EXPECTED <= share < 1:
            rows = goods.filter(pc.invert(there))
            lacks = "Its category is 'etc', or none" if name == schema.CATEGORY else f"It has no {name}"
            detail = f"{lacks}; {share:.1%} of the products have one."
            told.append(of_rows("missing_value", rows, [detail] * rows.num_rows, [name] * rows.num_rows))
    return pa.concat_tables(told)


def unreadable(goods: pa.Table, warnings: pa.Table) -> pa.Table:
    """Warnings (product_id, row_digest, column, detail) that still hold: of the rows that the products have now."""
    at = pc.index_in(warnings.column(schema.PRODUCT_ID), value_set=goods.column(schema.PRODUCT_ID))
    now = goods.take(at)
    digests = [pc.utf8_rtrim(t.column(schema.ROW_DIGEST), "-") for t in (now, warnings)]
    holds = pc.fill_null(pc.equal(*digests), False)
    now, rows = now.filter(holds), warnings.filter(holds)
    first: dict[tuple, int] = {}
    names = rows.column(schema.COLUMN).to_pylist()
    for n, key in enumerate(zip(now.column(schema.PRODUCT_ID).to_pylist(), names)):
        first.setdefault(key, n)
    some = pa.array(list(first.values()), pa.int64())
    columns = [rows.column(c).take(some).to_pylist() for c in (schema.COLUMN, schema.REJECT_DETAIL)]
    details = [without_secrets(f"Its {name}: {said}.") for name, said in zip(*columns)]
    return of_rows("unreadable_value", now.take(some), details, columns[0])


def rare_categories(goods: pa.Table) -> pa.Table:
    """Categories of one or two products whose name is almost that of a common one. The seven classes of ours are none."""
    if goods.num_rows < _LEAST_IN_ALL:
        return FOUND.empty_table()
    counts = {row["values"]: row["counts"] for row in pc.value_counts(goods.column(schema.CATEGORY)).to_pylist()}
    common = [name for name, num in counts.items() if num > _RARE]
    rare = [name for name, num in counts.items() if num <= _RARE and name not in (*CATEGORIES, ETC)]
    like = {name: (get_close_matches(name, common, 1, cutoff=0.85) or [None])[0] for name in rare[:_LEAST_IN_ALL]}
    like = {name: other for name, other in like.items() if other}
    rows = goods.filter(pc.is_in(goods.column(schema.CATEGORY), value_set=pa.array(list(like), pa.string())))
    names = rows.column(schema.CATEGORY).to_pylist()
    details = [
        f"Its category {n!r} has {counts[n]} of {goods.num_rows:,} products; {like[n]!r} has {counts[like[n]]:,}."
        for n in names
    ]
    return of_rows("rare_category", rows, details, names)


def same_pictures(pictures: pa.Table) -> np.ndarray:
    """int64 (N,): the first of the pictures that are the same or nearly. ``pictures``: distinct, with cluster_id (null where
    `w2w deduplicate` has not seen it), phash, and grid (null where not measured, or no other picture has that phash)."""
    num = pictures.num_rows
    edges = [_chained(pictures.column(schema.CLUSTER_ID))]
    measured = pictures.column(schema.GRID).is_valid()
    hashes = pc.if_else(measured, pictures.column(schema.PHASH), pa.scalar(None, pa.int64()))
    values = pc.fill_null(hashes, 0).to_numpy(zero_copy_only=False)
    order = np.argsort(values, kind="stable")
    for some in np.split(order, np.flatnonzero(np.diff(values[order])) + 1):
        if len(some) > 1 and abs(int(values[some[0]])).bit_count() >= _PLAIN_BITS:
            grids = b"".join(pictures.column(schema.GRID).take(pa.array(some)).to_pylist())
            edges.append(_of_one_look(some, np.frombuffer(grids, np.uint8).reshape(len(some), -1).astype(np.int16)))
    a_E2 = np.concatenate(edges)
    return components(num, a_E2[:, 0], a_E2[:, 1])


def _chained(keys: pa.ChunkedArray) -> np.ndarray:
    """Edges (E, 2) that connect the places of equal keys."""
    codes = pc.fill_null(keys.combine_chunks().dictionary_encode().indices, -1).to_numpy(zero_copy_only=False)
    order = np.argsort(codes, kind="stable")
    same = (np.diff(codes[order]) == 0) & (codes[order][1:] >= 0)
    return np.stack([order[:-1][same], order[1:][same]], axis=1).astype(np.int64)


def _of_one_look(some: np.ndarray, grids_NG: np.ndarray) -> np.ndarray:
    edges, left = [np.empty((0, 2), np.int64)], np.arange(len(some))
    while len(left):
        near = np.abs(grids_NG[left] - grids_NG[left[0]]).max(axis=1) <= _SAME_CELL
        edges.append(np.stack([np.full(near.sum(), some[left[0]]), some[left[near]]], axis=1))
        left = left[~near]
    return np.concatenate(edges)


def shared_pictures(goods: pa.Table, cluster_N: np.ndarray, flat_N: np.ndarray, plain_N: np.ndarray) -> pa.Table:
    """Placeholders, and other front pictures on several products. ``cluster_N``: equal where front pictures are, -1 without
    one; ``flat_N``: front pictures of one colour, ``plain_N``: with little on one; GROUP of goods: equal for variants of one
    product."""
    flat = goods.filter(pa.array(flat_N))
    told = [of_rows("placeholder", flat, ["Its front picture is one flat colour."] * flat.num_rows)]
    groups, categories = (goods.column(c).to_pylist() for c in (GROUP, schema.CATEGORY))
    images = goods.column(schema.IMAGE_ID).to_pylist()
    rows = np.flatnonzero((cluster_N >= 0) & ~flat_N)
    order = rows[np.argsort(cluster_N[rows], kind="stable")]
    picked: dict[str, list[tuple[int, str, str]]] = {"placeholder": [], "shared_picture": []}
    for some in np.split(order, np.flatnonzero(np.diff(cluster_N[order])) + 1):
        num = len({groups[n] for n in some}) if len(some) > 1 else 0
        if num < 2:
            continue
        kinds = sorted({categories[n] for n in some})
        among = f" of {len(kinds)} categories" if len(kinds) > 1 else ""
        many = num >= _MANY or (num >= _SEVERAL and len(kinds) >= _CATEGORIES)
        many |= num >= _SEVERAL_PLAIN and len(kinds) > 1 and bool(plain_N[some].all())
        detail = f"Its front picture, or nearly the same, is that of {num:,} products{among}."
        picked["placeholder" if many else "shared_picture"] += [(int(n), detail, images[some[0]]) for n in some]
    for kind, entries in picked.items():
        at, details, about = zip(*entries) if entries else ((), (), ())
        told.append(of_rows(kind, goods.take(pa.array(at, pa.int64())), list(details), list(about)))
    return pa.concat_tables(told)


def is_flat(quality: pa.Table) -> np.ndarray:
    """bool (N,): pictures without content. Null where not measured counts as content."""
    return (_floats(quality, schema.FILLED) < _LEAST_FILLED) | (_floats(quality, schema.CONTRAST) < 1)


def is_plain(quality: pa.Table) -> np.ndarray:
    """bool (N,): pictures with little but ground. Null where not measured counts as content."""
    return _floats(quality, schema.FILLED) < _PLAIN


def unclear(pictures: pa.Table, least_px: int) -> pa.Table:
    """Tiny and blurred pictures. ``pictures``: product_id, image_id, width, height and the columns of `quality`, the front of a
    product first, its others after it; null where not known."""
    side_N = np.fmin(_floats(pictures, schema.WIDTH), _floats(pictures, schema.HEIGHT))
    sharp_N, contrast_N = (_floats(pictures, c) for c in (schema.SHARPNESS, schema.CONTRAST))
    soft = (sharp_N < _LEAST_SHARPNESS) & (sharp_N < _LEAST_EDGES * contrast_N) & ~is_flat(pictures)
    small = side_N < least_px

    def shape(n: int) -> str:
        return f"{pictures.column(schema.WIDTH)[n]} x {pictures.column(schema.HEIGHT)[n]} pixels, {least_px} a side are needed"

    told = [_of_pictures("tiny", pictures, small, shape)]
    told.append(
        _of_pictures(
            "blurred",
            pictures,
            soft & ~small,
            lambda n: f"sharpness {sharp_N[n]:.0f}, {_LEAST_SHARPNESS:.0f} is the least of sharp ones",
        )
    )
    return pa.concat_tables(told)


def _of_pictures(kind: str, pictures: pa.Table, bad_N: np.ndarray, say: Callable[[int], str]) -> pa.Table:
    products = pictures.column(schema.PRODUCT_ID).to_pylist()
    images = pictures.column(schema.IMAGE_ID)
    rows: dict[str, list[int]] = {}
    for n in np.flatnonzero(bad_N).tolist():
        rows.setdefault(products[n], []).append(n)
    details = []
    for product, some in rows.items():
        front = some[0] == 0 or products[some[0] - 1] != product
        more = f", and {len(some) - 1} more" if len(some) > 1 else ""
        details.append(f"{'Its front picture' if front else 'One of its further pictures'}{more}: {say(some[0])}.")
    shown = [images.take(pa.array(some[:_SHOWN_OF_EACH])).to_pylist() for some in rows.values()]
    return found(kind, list(rows), details, shown)


def only_worn(pictures: pa.Table, looked: pa.ChunkedArray, worn: pa.Array) -> tuple[pa.Table, float]:
    """Products that somebody wears in all of their pictures, which a detector has all looked at; and the share of such among
    those that it has: above half, nothing is found, as it is how the shop shows them."""
    known, people = (
        pc.is_in(pictures.column(schema.IMAGE_ID), value_set=v).to_numpy(zero_copy_only=False) for v in (looked, worn)
    )
    products = pictures.column(schema.PRODUCT_ID)
    codes = products.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    num = int(codes.max(initial=-1)) + 1
    seen = np.bincount(codes, ~known, num) == 0
    alone = np.bincount(codes, known & ~people, num) > 0
    share = float((seen & ~alone).sum() / max(1, seen.sum()))
    if share > HOUSE_STYLE:
        return FOUND.empty_table(), share
    first = np.unique(codes, return_index=True)[1]
    rows = pictures.take(pa.array(first[seen & ~alone]))
    return of_rows("only_worn", rows, ["To the detector, somebody wears it in each of its pictures."] * rows.num_rows), share


def contradicted(
    goods: pa.Table, names: Sequence[str], other_N: np.ndarray, margin_N: np.ndarray, deviation_N: np.ndarray
) -> pa.Table:
    """Products whose picture looks like another category, the surest first. ``other_N``: place of it in ``names``; ``margin_N``
    and ``deviation_N``: of ``Judged``."""
    some = np.flatnonzero((margin_N > SURE) & (deviation_N > ODD))
    some = some[np.argsort(-margin_N[some], kind="stable")]
    rows, others = goods.take(pa.array(some)), [names[n] for n in other_N[some]]
    own = rows.column(schema.CATEGORY).to_pylist()
    details = [f"It is sold as {a!r}, and looks like {b!r} ({m:.2f})." for a, b, m in zip(own, others, margin_N[some])]
    return of_rows("wrong_category", rows, details, others)


def judged_categories(goods: pa.Table) -> list[str]:
    """The 500 largest categories that have enough products to say what they look like, if there are two; ``etc`` is none."""
    counts = pc.value_counts(goods.column(schema.CATEGORY)).to_pylist()
    enough = [(row["counts"], row["values"]) for row in counts if row["counts"] >= _LEAST_OF_CLASS and row["values"] != ETC]
    names = sorted(name for _, name in sorted(enough, reverse=True)[:_MOST_CLASSES])
    return names if len(names) > 1 else []


def check_ids(rows: pa.Table) -> list[str]:
    """What a finding is known by from night to night."""
    columns = (rows.column(c).to_pylist() for c in (schema.KIND, schema.PRODUCT_ID, schema.ABOUT))
    return [
        ids.digest(kind, product, about if kind in _BY_ABOUT else None, length=32) for kind, product, about in zip(*columns)
    ]


def with_since(
    rows: pa.Table, goods: pa.Table, before: pa.Table, looked_at: Sequence[str], now: datetime, run_id: str
) -> pa.Table:
    """Rows of `checks`: those found now, in order, since when they stand; then, of kinds that were not looked at, the earlier
    ones of products that are still sold. ``rows``: FOUND; ``before``: the table as it was."""
    names = check_ids(rows)
    first = dict(zip(*(before.column(c).to_pylist() for c in (schema.CHECK_ID, schema.SINCE))))
    products = goods.column(schema.PRODUCT_ID)
    told = {
        schema.CHECK_ID: pa.array(names, pa.string()),
        schema.URL: goods.column(schema.URL).take(pc.index_in(rows.column(schema.PRODUCT_ID), value_set=products)),
        schema.SINCE: pa.array([first.get(name, now) for name in names], schema.TIME),
        schema.CHECKED_AT: pa.array([now] * len(names), schema.TIME),
        schema.RUN_ID: pa.array([run_id] * len(names), pa.string()),
    }
    fields = schema.CHECKS.schema
    tonight = pa.table([told[f.name] if f.name in told else rows.column(f.name) for f in fields], schema=fields)
    stands = pc.invert(pc.is_in(before.column(schema.KIND), value_set=pa.array(looked_at, pa.string())))
    return pa.concat_tables(
        [tonight, before.filter(pc.and_(stands, pc.is_in(before.column(schema.PRODUCT_ID), value_set=products)))]
    )


def _money(row: dict) -> str:
    return price_text(row[schema.PRICE], row[schema.CURRENCY])


def _rows(goods: pa.Table) -> list[dict]:
    columns = (schema.PRICE, schema.SALE_PRICE, schema.REGULAR_PRICE, schema.CURRENCY, schema.CATEGORY, OFFERED)
    return goods.select([c for c in columns if c in goods.column_names]).to_pylist()


def _floats(rows: pa.Table, name: str) -> np.ndarray:
    """float64 (N,), NaN for null, which compares as false."""
    return pc.cast(rows.column(name), pa.float64()).to_numpy(zero_copy_only=False)
