"""Items of work: cut to a limit, and tapered towards the end."""

import pyarrow as pa

from w2w.runtime.source import Source
from w2w.table.pending import ITEM_SCHEMA


def source(*sizes: int) -> Source:
    items = [pa.table([["f"], [i], [None], [n]], schema=ITEM_SCHEMA) for i, n in enumerate(sizes)]
    return Source("root", items, sum(sizes), pa.schema([("key", pa.string())]), "key")


def rows(made: Source) -> list[tuple[int, int]]:
    """(row group, row) of every row of every item, in order."""
    found = []
    for item in made.items:
        [row] = item.to_pylist()
        numbers = row["rows"] or range(row["num_rows"])
        assert len(numbers) == row["num_rows"]
        found += [(row["row_group"], n) for n in numbers]
    return found


def test_tapered_items_hold_the_same_rows_and_shrink():
    whole = source(1024, 1024, 1024, 1000)
    made = whole.tapered(num_workers=2, least_rows=64)
    sizes = [i.column("num_rows")[0].as_py() for i in made.items]
    assert rows(made) == rows(whole)
    assert made.num_rows == whole.num_rows
    left = whole.num_rows
    for size in sizes:
        assert size <= max(64, left // 4)
        left -= size
    assert sizes[0] > 4 * sizes[-1]


def test_small_items_stay_as_they_are():
    whole = source(10, 20, 30)
    assert whole.tapered(num_workers=8, least_rows=64).items == whole.items


def test_first_cuts_at_the_limit():
    made = source(10, 20, 30).first(15)
    assert made.num_rows == 15
    assert rows(made) == [(0, n) for n in range(10)] + [(1, n) for n in range(5)]
