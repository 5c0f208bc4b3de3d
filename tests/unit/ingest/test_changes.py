"""What a feed changes in the catalog as it stands."""

import pyarrow as pa
import pytest

from w2w import schema
from w2w.ingest.changes import CurrentProducts, withdrawn


def products(*ids: str, active: bool = True, feed: str | None = "main") -> pa.Table:
    n = len(ids)
    columns = {schema.PRODUCT_ID: list(ids), schema.ROW_DIGEST: [f"d-{i}" for i in ids], schema.ACTIVE: [active] * n}
    return pa.table(columns | {schema.FEED: pa.array([feed] * n, pa.string())})


def test_only_a_row_that_says_the_same_is_unchanged():
    current = CurrentProducts(pa.concat_tables([products("a", "b"), products("c", active=False)]), "main")
    rows = products("a", "b", "c").set_column(1, schema.ROW_DIGEST, pa.array(["d-a", "another", "d-c"]))
    assert current.unchanged(rows).to_pylist() == [True, False, False]
    assert current.unchanged(rows.set_column(1, schema.ROW_DIGEST, pa.nulls(3, pa.string()))).to_pylist() == [False] * 3


@pytest.mark.parametrize("gone", ["a", "b", "c", "d"])
def test_what_the_feed_does_not_list_is_withdrawn_and_what_is_new_is_not(gone):
    old, new = products("a", "b", "c", "d"), products("e", "f", "g")
    current = CurrentProducts(old, "main")
    current.list(pa.array([i for i in "abcdefg" if i != gone]))
    assert current.num_unlisted == 1
    assert current.unlisted(pa.concat_tables([old, new])).column(schema.PRODUCT_ID).to_pylist() == [gone]


def test_a_withdrawn_product_stays_what_it_was_but_inactive():
    rows = products("a").append_column(schema.FETCHED_AT, pa.array([0], schema.TIME))
    (row,) = withdrawn(rows).to_pylist()
    assert (row[schema.PRODUCT_ID], row[schema.ROW_DIGEST], row[schema.ACTIVE]) == ("a", "d-a", False)
    assert row[schema.FETCHED_AT].year > 2000
