"""Anti-join and items of work: the same rows whatever the number of buckets, and nothing read twice."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.recommend import stores
from w2w import ids, schema, storage
from w2w.table import pending
from w2w.table.pending import Keys, values_by_key


def keys_of(values: list[str], size: int = 3) -> Keys:
    return Keys([pa.chunked_array([values[i : i + size]], pa.string()) for i in range(0, len(values), size)], len(values))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(max_size=5), unique=True, max_size=40),
    st.lists(st.lists(st.text(max_size=5), max_size=30), max_size=3),
    st.sampled_from([1, 4, 1000]),
)
def test_pending_is_the_set_difference(source, done, bucket_keys):
    mask = pending.pending_mask(keys_of(source), [keys_of(d) for d in done], bucket_keys)
    finished = {k for d in done for k in d}
    assert mask.tolist() == [k not in finished for k in source]


def test_a_source_that_is_not_as_long_as_promised_is_a_bug():
    short = Keys([pa.chunked_array([["a"]])], 2)
    with pytest.raises(AssertionError, match="promised 2 source rows, 1 were read"):
        pending.pending_mask(short, [keys_of(["x"])])


def test_items_name_exactly_the_wanted_rows(tmp_path):
    n = 1000
    table = pa.table({"k": [f"k{i}" for i in range(n)], "v": np.arange(n)})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=150)
    system, root = storage.filesystem(str(tmp_path))
    rng = np.random.default_rng(0)
    for wanted in (np.ones(n, bool), rng.random(n) < 0.1, np.arange(n) >= 900, np.zeros(n, bool)):
        items = list(pending.file_items(system, f"{root}/t.parquet", "t.parquet", wanted, 100))
        assert all(i.column("num_rows")[0].as_py() <= 100 for i in items)
        got = [
            v
            for item in items
            for batch in pending.read_item(system, root, item.to_pylist()[0], ["v"], 40)
            for v in batch.column("v").to_pylist()
        ]
        assert got == np.flatnonzero(wanted).tolist()
    whole = list(pending.file_items(system, f"{root}/t.parquet", "t.parquet", None, 1024))
    assert [i.column("rows")[0].as_py() for i in whole] == [None] * 7


def test_values_by_key_are_those_that_there_are(tmp_path):
    stores.fill(str(tmp_path), range(2))
    one, picture = ids.image_id(stores.picture(1)), stores.picture(1)
    assert values_by_key(str(tmp_path), schema.IMAGES, [one, None, "nowhere", one], schema.BYTES) == {one: picture}
    assert values_by_key(str(tmp_path), schema.IMAGES, [], schema.BYTES) == {}
