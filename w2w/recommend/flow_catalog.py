"""Recommendations for every product of the catalog, into table `recommendations`.

A row follows from its question: the product, the candidates of each place (their pictures, and what the rules look at), the
scorer and the options. All of that is in its digest. Which rows may have become stale is known without asking any question:

- Table `offered` has a mark of every product as it was when the rows were made. Products whose mark is another one, new ones
  and those that are gone are the changed ones, X.
- A row keeps the least score that made a candidate in each class (its floors). A changed product, as it is now or as it was,
  can matter to a row only where it reaches the floor of its class: a pass over all rows that costs N |X| scores.

Workers find the candidates of those rows anew, and search for outfits where the digest is another one. A run that is killed
leaves rows made from the catalog of its night: so it first writes the new marks beside the old, and drops the old ones only
once everything is done. The next run then compares with both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from w2w import ids, schema
from w2w.engine.source import Source, file_rows
from w2w.garments.taxonomy import CATEGORIES
from w2w.recommend.answers import marks
from w2w.recommend.house import House
from w2w.recommend.rules import OutfitConfig, Stylist
from w2w.recommend.shelf import CODE, Applied, Shelf
from w2w.recommend.stage import AT, BEFORE, WORK
from w2w.table import delta, work
from w2w.table.current import CurrentRows
from w2w.table.pending import rejected_keys

STAGE = "recommend"
_CODE = 3  # raise it when the same question would have other answers
_SCORES_AT_ONCE = 1 << 22
_MOST_CHANGED = 0.2  # of the catalog: above, all rows are asked again
_ABSENT = ""  # category of a product that was not there
_TOLERANCE = 1e-3  # of a score: one that was computed among others may differ in its last digits


def version_of(scorer: str, house: House, config: OutfitConfig) -> str:
    """Of all that decides every row: code, scorer, options, and the rules that are not seen in candidates."""
    never = [[a.wanted, b.wanted] for a, b in house.never_together]
    return ids.digest(_CODE, scorer, config, house.max_uses, house.brands, house.total_max, never)


@dataclass(frozen=True)
class Offer:
    """The products of a shelf (``now``), and the states that rows may follow from (``before``), in the columns of OFFERED.
    ``mark_N``: of the shelf's rows; ``changed``: ids of products with another state than now; ``moved``: their rows of the
    shelf, and ``fresh`` those in a state that is not among those before; ``old``: states before that are none now."""

    now: pl.DataFrame
    before: pl.DataFrame
    mark_N: np.ndarray
    changed: pl.Series
    moved: np.ndarray
    fresh: np.ndarray
    old: pl.DataFrame

    @property
    def settled(self) -> bool:
        return not len(self.changed)

    @property
    def placed(self) -> pl.DataFrame:
        """The old states in which products were there."""
        return self.old.filter(pl.col(schema.CATEGORY) != _ABSENT)

    def both(self) -> pa.Table:
        """The states before and now; of a product that came, also that it was not there."""
        fresh = self.now[self.fresh.tolist()]
        came = fresh.join(self.before, on=schema.PRODUCT_ID, how="anti") if self.before.height else fresh.clear()
        absent = pl.lit(_ABSENT)
        came = came.with_columns(absent.alias(schema.IMAGE_ID), absent.alias(schema.CATEGORY), pl.lit(0).alias(schema.MARK))
        return _as_offered(pl.concat([self.before, fresh, came.cast(fresh.schema)]))

    def only_now(self) -> pa.Table:
        return _as_offered(self.now)


def offer_of(store: str, shelf: Shelf, applied: Applied, attributes: Sequence[str]) -> Offer:
    """Held: about 150 bytes a product. ``attributes``: those that the scorer looks at."""
    mark_N = marks(shelf, applied, attributes)
    pinned_N = np.logical_or.reduce([np.zeros(len(shelf), bool), *(mask for _, mask, _ in applied.pins)])
    columns = {c: pl.from_arrow(shelf.rows.column(c)) for c in (schema.PRODUCT_ID, schema.IMAGE_ID, schema.CATEGORY)}
    now = pl.DataFrame(columns | {schema.MARK: mark_N, schema.PINNED: pinned_N}).select(schema.OFFERED.schema.names)
    known = delta.open_table(store, schema.OFFERED)
    stored = delta.read(store, schema.OFFERED, schema.OFFERED.schema.names) if known else schema.OFFERED.schema.empty_table()
    before = pl.from_arrow(stored).cast(now.schema)
    same = [schema.PRODUCT_ID, schema.MARK]
    fresh = now.with_row_index("row").join(before, on=same, how="anti")
    old = before.join(now, on=same, how="anti")
    changed = pl.concat([fresh[schema.PRODUCT_ID], old[schema.PRODUCT_ID]]).unique().sort()
    moved = np.flatnonzero(now[schema.PRODUCT_ID].is_in(changed.implode()).to_numpy())
    return Offer(now, before, mark_N, changed, moved, np.sort(fresh["row"].to_numpy()), old)


def _as_offered(rows: pl.DataFrame) -> pa.Table:
    return rows.to_arrow().cast(schema.OFFERED.schema)


@dataclass(frozen=True)
class Work:
    """Rows of WORK that are pending: ``changed`` products with a row that may be stale, ``new`` ones, ``gone`` ones;
    ``products`` in all, ``done`` of them before, ``rejected`` of these."""

    products: int
    new: int
    changed: int
    gone: int
    done: int
    rejected: int

    @property
    def pending(self) -> int:
        return self.new + self.changed + self.gone


def write_work(
    store: str,
    run_id: str,
    stylist: Stylist,
    offer: Offer,
    without_vector: Mapping[str, str | None],
    version: str,
    item_rows: int,
    dry_run: bool,
) -> Work:
    """Writes what is to be asked as work files, unless ``dry_run``. The rows of ``offer.placed`` stand behind the shelf. Held:
    200 bytes a product."""
    rows = _newest(store)
    shelf = stylist.shelf
    asked_N = np.isin(shelf.class_N, [CODE[c] for c in stylist.space.classes])
    on_shelf = (
        offer.now.select(schema.PRODUCT_ID)
        .with_row_index(AT)
        .join(rows, on=schema.PRODUCT_ID, how="left", maintain_order="left")
    )
    is_new_N = on_shelf[schema.ROW_DIGEST].is_null().to_numpy()
    stale = (on_shelf[schema.STAGE_VERSION] != version) | ~on_shelf[schema.ACTIVE] | on_shelf[schema.FLOORS].is_null()
    stale_N = (stale.fill_null(value=True) | on_shelf[schema.PRODUCT_ID].is_in(offer.changed.implode())).to_numpy()
    stale_N = stale_N | _touched(stylist, offer, _floors(on_shelf[schema.FLOORS]), asked_N & ~stale_N)
    order = np.flatnonzero(asked_N & stale_N)
    order = order[np.argsort(shelf.class_N[order], kind="stable")]
    answered = on_shelf[order.tolist()]
    tables = [_work(answered, answered[schema.ROW_DIGEST].to_list(), active=True)]

    refused = set(rejected_keys(store, STAGE, version).read().to_pylist())
    lacking = pl.DataFrame({schema.PRODUCT_ID: sorted(without_vector)}, schema={schema.PRODUCT_ID: pl.String})
    digests = [ids.digest(version, without_vector[p], length=32) for p in lacking[schema.PRODUCT_ID].to_list()]
    lacking = lacking.with_columns(pl.Series(schema.KEY, digests, pl.String)).with_columns(
        pl.concat_str(schema.PRODUCT_ID, pl.lit(" "), schema.KEY).alias(schema.KEY)
    )
    is_refused = lacking[schema.KEY].is_in(list(refused))
    known = set(rows[schema.PRODUCT_ID].to_list()) if lacking.height else set()
    tables.append(_work(lacking.filter(~is_refused), None, active=True))

    there = pl.concat([on_shelf.filter(pl.Series(asked_N))[schema.PRODUCT_ID], lacking[schema.PRODUCT_ID]])
    gone = rows.filter(pl.col(schema.ACTIVE) & ~pl.col(schema.PRODUCT_ID).is_in(there.implode())).sort(schema.PRODUCT_ID)
    tables.append(_work(gone, [ids.digest(version, "gone", length=32)] * gone.height, active=False))
    work.write(store, run_id, iter(tables), WORK, item_rows, count_only=dry_run)

    waiting = lacking.filter(~is_refused)[schema.PRODUCT_ID].to_list()
    new = int((is_new_N[order]).sum()) + sum(p not in known for p in waiting)
    changed = len(order) + len(waiting) - new
    rejected = int(is_refused.sum())
    return Work(len(there), new, changed, gone.height, len(there) - new - changed, rejected)


def _work(rows: pl.DataFrame, before: Sequence[str | None] | None, active: bool) -> pa.Table:
    """``rows``: product_id, and as they have them KEY and AT."""
    columns = {name: rows[name].to_arrow() if name in rows.columns else pa.nulls(rows.height) for name in WORK.names}
    if schema.KEY not in rows.columns:
        columns[schema.KEY] = columns[schema.PRODUCT_ID]
    columns[schema.ACTIVE] = pa.repeat(pa.scalar(active), rows.height)
    columns[BEFORE] = pa.array(before if before is not None else [None] * rows.height, pa.string())
    return pa.table([columns[f.name].cast(f.type) for f in WORK], schema=WORK)


def _touched(stylist: Stylist, offer: Offer, floor_NC: np.ndarray, wanted_N: np.ndarray) -> np.ndarray:
    """bool (N,): which of the wanted rows a changed product may matter to."""
    if offer.settled:
        return np.zeros(len(wanted_N), bool)
    num, shelf, old = len(offer.moved) + offer.placed.height, stylist.shelf, offer.placed
    is_pinned = old[schema.PINNED].any() or offer.now[schema.PINNED].to_numpy()[offer.moved].any()
    if is_pinned or num > _MOST_CHANGED * len(shelf) or stylist.size - len(shelf) < old.height:
        return wanted_N.copy()
    changed = np.concatenate([offer.moved, np.arange(len(shelf), stylist.size)])
    touched_N = np.zeros(len(shelf), bool)
    classes = [CODE[c] for c in stylist.space.classes]
    block = max(1, _SCORES_AT_ONCE // num)
    for given in classes:
        rows = np.flatnonzero(wanted_N & (shelf.class_N == given))
        for place in (c for c in classes if c != given):
            those = changed[stylist.class_M[changed] == place]
            if not len(those):
                continue
            for some in (rows[i : i + block] for i in range(0, len(rows), block)):
                best = stylist.pair(some, those).max(axis=1)
                floor = floor_NC[some, place]
                touched_N[some] |= (
                    best + _TOLERANCE * np.maximum(1, np.abs(best)) >= floor
                )  # not where no candidate was sought: NaN
    return touched_N


def _floors(column: pl.Series) -> np.ndarray:
    """float32 (N, C), NaN where there is no row."""
    found = np.full((len(column), len(CATEGORIES)), np.nan, np.float32)
    has = column.is_not_null().to_numpy()
    found[has] = column.drop_nulls().explode().to_numpy().reshape(-1, len(CATEGORIES))
    return found


def source_of(store: str, run_id: str, found: Work, item_rows: int) -> Source:
    return file_rows(work.folder(store, run_id), schema.KEY, schema.PRODUCT_ID, item_rows, found.done, found.rejected)


def _newest(store: str) -> pl.DataFrame:
    """The newest row of each product, without its outfits."""
    columns = [schema.PRODUCT_ID, schema.ROW_DIGEST, schema.ACTIVE, schema.STAGE_VERSION, schema.FLOORS]
    empty = pa.schema([schema.RECOMMENDATIONS.schema.field(c).with_nullable(True) for c in columns]).empty_table()
    batches = CurrentRows(store, schema.RECOMMENDATIONS).batches(columns)
    return pl.from_arrow(pa.concat_tables([empty, *(b.select(columns).cast(empty.schema) for b in batches)]))


def stored_outfits(store: str, count: int) -> list[dict]:
    """The newest rows of ``count`` active products with outfits, a fixed sample, by product_id."""
    columns = [schema.PRODUCT_ID, schema.OUTFITS_LIST, schema.REASON, schema.ACTIVE]
    empty = schema.RECOMMENDATIONS.empty(columns)
    sample = empty
    for batch in CurrentRows(store, schema.RECOMMENDATIONS).batches(columns):
        rows = pl.from_arrow(batch.select([schema.PRODUCT_ID, schema.ACTIVE]))
        sample = pa.concat_tables([sample, batch.filter(rows[schema.ACTIVE].to_arrow())])
        sample = sample.take(pa.array(np.argsort(ids.hash_keys(sample.column(schema.PRODUCT_ID)), kind="stable")[:count]))
    return sample.sort_by(schema.PRODUCT_ID).to_pylist()
