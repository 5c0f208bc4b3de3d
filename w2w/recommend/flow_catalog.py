"""Recommendations for every product of the catalog, into table `recommendations`.

A row follows from its question: the product, the candidates for each slot (their pictures, and what the rules look at), the
scorer and the options. Its digest covers all of these. A night finds every product's candidates again, which is a matrix
product, and searches for outfits only if the digest differs from that of the product's newest row.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from w2w import ids, schema
from w2w.engine.source import Source, file_rows
from w2w.recommend.answers import digest_of, marks, to_text
from w2w.recommend.rules import OutfitConfig, Question, Stylist
from w2w.recommend.stage import WORK
from w2w.table import delta, work
from w2w.table.pending import rejected_keys

STAGE = "recommend"
_CODE = 1  # bump when the same question would have other answers
_SCORES_AT_ONCE = 1 << 22


def version_of(scorer: str, stylist: Stylist, config: OutfitConfig) -> str:
    """Digest of what decides every row: code, scorer, options, and the rules that do not show in candidates."""
    house = stylist.applied.house
    never = [[a.wanted, b.wanted] for a, b in house.never_together]
    return ids.digest(_CODE, scorer, config, house.max_uses, house.brands, house.total_max, never)


def questions(stylist: Stylist) -> Iterator[tuple[int, Question]]:
    """Each product of a class that the scorer knows, with its question, in blocks of one class."""
    block = max(1, _SCORES_AT_ONCE // max(1, len(stylist.shelf)))
    for code in np.unique(stylist.shelf.class_N):
        rows = np.flatnonzero(stylist.shelf.class_N == code)
        if stylist.category(int(rows[0])) in stylist.space.classes:
            for start in range(0, len(rows), block):
                some = [(int(row),) for row in rows[start : start + block]]
                yield from zip((row for (row,) in some), stylist.questions(some))


@dataclass(frozen=True)
class Work:
    """Pending rows in WORK: ``changed`` products, ``new`` ones, ``gone`` ones; ``products`` in all, ``done`` of them before,
    ``rejected`` of these."""

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
    without_vector: dict[str, str | None],
    version: str,
    item_rows: int,
    dry_run: bool,
) -> Work:
    """Writes the pending work as work files, unless ``dry_run``. Memory: 100 bytes per product."""
    before = _newest(store)
    refused = set(rejected_keys(store, STAGE, version).read().to_pylist())
    counts: dict[str, int] = defaultdict(int)
    told, seen = marks(stylist), set[str]()
    names = stylist.shelf.rows.column(schema.PRODUCT_ID).to_pylist()

    def row(product: str, digest: str, text: str | None, active: bool = True) -> dict | None:
        """A product's work; None if it is done."""
        key = f"{product} {digest}"
        if key in refused:
            counts["rejected"] += 1
        if before.get(product) == (digest, active) or key in refused:
            counts["done"] += 1
            return None
        counts["gone" if not active else "changed" if product in before else "new"] += 1
        return dict(zip(WORK.names, (key, product, digest, active, text)))

    def rows() -> Iterator[dict | None]:
        for at, question in questions(stylist):
            seen.add(names[at])
            yield row(names[at], digest_of(question, told, version), to_text(question))
        for product, image in sorted(without_vector.items()):
            seen.add(product)
            yield row(product, ids.digest(version, image, length=32), None)
        for product, (_, active) in sorted(before.items()):
            if active and product not in seen:
                yield row(product, ids.digest(version, "gone", length=32), None, active=False)

    def tables() -> Iterator[pa.Table]:
        held: list[dict] = []
        for one in rows():
            held += [one] if one else []
            if len(held) >= item_rows:
                yield pa.Table.from_pylist(held, schema=WORK)
                held = []
        yield pa.Table.from_pylist(held, schema=WORK)

    work.write(store, run_id, tables(), WORK, item_rows, count_only=dry_run)
    found = (counts[name] for name in ("new", "changed", "gone", "done", "rejected"))
    return Work(len(seen), *found)


def source_of(store: str, run_id: str, found: Work, item_rows: int) -> Source:
    return file_rows(work.folder(store, run_id), schema.KEY, schema.PRODUCT_ID, item_rows, found.done, found.rejected)


def _newest(store: str) -> dict[str, tuple[str, bool]]:
    """product_id -> digest and active of the newest row of each."""
    columns = [schema.PRODUCT_ID, schema.ROW_DIGEST, schema.ACTIVE]
    batches = delta.CurrentRows(store, schema.RECOMMENDATIONS).batches(columns)
    return {p: (d, a) for batch in batches for p, d, a in zip(*(c.to_pylist() for c in batch.columns))}


def stored_outfits(store: str, count: int) -> list[dict]:
    """The newest rows of ``count`` active products with outfits, a fixed sample, by product_id."""
    columns = [schema.PRODUCT_ID, schema.OUTFITS_LIST, schema.REASON, schema.ACTIVE]
    empty = pa.schema([schema.RECOMMENDATIONS.schema.field(c) for c in columns]).empty_table()
    sample = empty
    for batch in delta.CurrentRows(store, schema.RECOMMENDATIONS).batches(columns):
        rows = pl.from_arrow(batch.select([schema.PRODUCT_ID, schema.ACTIVE]))
        sample = pa.concat_tables([sample, batch.filter(rows[schema.ACTIVE].to_arrow())])
        sample = sample.take(pa.array(np.argsort(ids.hash_keys(sample.column(schema.PRODUCT_ID)), kind="stable")[:count]))
    return sample.sort_by(schema.PRODUCT_ID).to_pylist()
