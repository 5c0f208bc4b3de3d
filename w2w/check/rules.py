"""Faults of what is said of products: prices, categories, values, links; and since when each stands. Arrow and NumPy in,
findings out."""

from collections.abc import Sequence
from datetime import datetime
from difflib import get_close_matches

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.check.classes import MAD_TO_SD
from w2w.check.kinds import FOUND, of_rows
from w2w.classes import CATEGORIES, ETC
from w2w.errors import RejectCode
from w2w.report.cards import price_text
from w2w.shown import without_secrets

OFFERED = "offered"  # a column of products: a sale price that is none
_LEAST_PRICED, _NAMED = 20, 5
_Z = 3.5  # modified z-score (Iglewicz and Hoaglin 1993, "How to detect and handle outliers", p. 11)
_LEAST_FACTOR = 3.0  # to the usual price: less is no outlier, however alike the others
_EXPECTED = 0.8  # of the products have it: then one without it is told
_LEAST_IN_ALL, _RARE = 200, 2
_LEAST_OF_CLASS, _MOST_CLASSES = 20, 500  # products, of which fewer do not say what a category looks like; categories judged
SURE, ODD = 0.5, 4.0  # margin and robust deviations from which another category is told (tests/bench/check_swaps.py)
# other refusals, such as robots.txt or HTTP 403, say nothing of what customers see
_NO_PAGE = (
    RejectCode.NOT_FOUND,
    RejectCode.WRONG_TYPE,
    RejectCode.FETCH_FAILED,
    RejectCode.TOO_SLOW,
    RejectCode.BLOCKED_URL,
)

_BY_ABOUT = ("missing_value", "unreadable_value", "wrong_value")  # a product may have several


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
