"""Vectors: which row is whose, and the names of rows, without keeping them."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.unit.table.test_sink import EMBEDDINGS, lineage, vectors
from w2w.engine import shuffle
from w2w.engine.shuffle import Vectors, list_served, list_vectors, read_vectors, seek_vectors, to_matrix
from w2w.errors import JobFailed
from w2w.ids import Places
from w2w.table import bridges
from w2w.table.bridges import Bridge
from w2w.table.delta import Part
from w2w.table.sink import append_rows

NAMES = [f"o{i}" for i in range(30)]


@pytest.fixture
def store(tmp_path):
    for start in range(0, 30, 10):
        append_rows(str(tmp_path), EMBEDDINGS, vectors(NAMES[start : start + 10]), lineage())
    append_rows(str(tmp_path), EMBEDDINGS, vectors(["o1", "other"], "m2"), lineage())
    return str(tmp_path)


def test_rows_and_names(store):
    found = list_vectors(store, "m1")
    every = [name for names in found.names() for name in names.to_pylist()]
    assert sorted(every) == sorted(NAMES)
    at = found.find(pa.array(["o7", "other", "o29", "o7"]))
    assert at[1] == -1
    assert [every[i] for i in at[[0, 2, 3]]] == ["o7", "o29", "o7"]
    asked = np.array([29, 3, 3, 0, 17])
    assert found.read_names(asked).to_pylist() == [every[i] for i in asked]
    assert found.read_names(asked[:0]).to_pylist() == []


def test_few_are_sought_as_they_are_listed(store, monkeypatch):
    listed, sought = list_vectors(store, "m1"), seek_vectors(store, "m1")
    few = [[], ["o7", "other", "o29", "o7"], [None, "o3"]]
    for few_is in (50, 0):
        monkeypatch.setattr(shuffle, "_FEW", few_is)
        for some in few[: 3 if few_is else 2]:
            for owners in (pa.array(some, pa.string()), pa.chunked_array([some[:1], some[1:]], pa.string())):
                assert sought.find(owners).tolist() == listed.find(pc.fill_null(owners, "")).tolist()


def test_a_model_without_vectors(store):
    nothing = list_vectors(store, "m3")
    assert len(nothing.places) == 0
    assert nothing.find(pa.array(["o1"])).tolist() == [-1]
    assert list(nothing.names()) == []


@pytest.mark.parametrize("batches", [1, 2])
def test_a_vector_of_another_length_is_a_sentence(tmp_path, batches):
    """In one batch, and in a part of its own."""
    good, short = vectors(["a", "b"]), vectors(["c"]).set_column(3, "vector", pa.array([[1.0]], pa.list_(pa.float32())))
    for i, rows in enumerate([pa.concat_tables([good, short])] if batches == 1 else [good, short]):
        append_rows(str(tmp_path), EMBEDDINGS, rows, lineage(f"{i}", f"run{i}"))
    listed = list_vectors(str(tmp_path), "m1")
    assert read_vectors(listed, np.array([0])).shape[1] in (1, 2)
    with pytest.raises(JobFailed, match=r"^vectors of one model must have one length, and there are some of 1, 2: "):
        read_vectors(listed, np.arange(3))
    for lists in ([[]], [None], [[1.0], None]):
        with pytest.raises(JobFailed, match="must have one length"):
            to_matrix(pa.array(lists, pa.list_(pa.float32())))


def test_through_a_bridge_an_owner_has_its_old_vector_or_its_new_one_mapped(tmp_path):
    store, old, new = str(tmp_path), "aaaaaaaa", "bbbbbbbb"
    old_names, new_names = [f"o{i}" for i in range(8)], ["o3", "n1", "o7", "n0"]
    append_rows(store, EMBEDDINGS, vectors(old_names, old), lineage())
    longer = vectors(new_names, new)
    own = pa.array([[float(i), 1.0, 0.0] for i in range(4)], longer.schema.field("vector").type)
    longer = longer.set_column(longer.schema.get_field_index("vector"), longer.schema.field("vector"), own)
    append_rows(store, EMBEDDINGS, longer, lineage())
    swapped = np.float32([[0, 1], [1, 0], [0, 0]])
    bridge = Bridge(old, new, swapped, np.zeros(2, np.float32))
    assert len(list_served(store, bridge.version).places) == 0  # the store has no such bridge
    bridges.write(bridges.uri_of(store, "x"), bridge)
    served, before = list_served(store, bridge.version), list_vectors(store, old)
    at = served.find(pa.array(["n1", *old_names, "n0", "none"]))
    assert at[-1] == -1
    assert (at[1:9] < 8).all()
    found = read_vectors(served, at[:-1])
    assert (found[1:9] == read_vectors(before, before.find(pa.array(old_names)))).all()
    assert found[[0, 9]] == pytest.approx(np.float32([[1, 1], [1, 3]]) / np.sqrt([[2], [10]]))
    assert sorted(name for names in served.names() for name in names.to_pylist()) == sorted(old_names + new_names)
    assert len(list_served(store, old).places) == 8


def test_map_tasks_are_so_large_that_no_piece_is_kept_by_the_driver():
    """For any number of targets: Ray keeps results below 100 kB in the driver's memory."""
    parts = [Part(f"{n}.parquet", 20_000, 20_000 * 512) for n in range(500)]
    for num_targets in (1, 112, 800):
        vectors = Vectors("s", "m", parts, Places(np.empty((0, 2), np.uint64)))
        chunks = list(shuffle._chunks(vectors, num_targets))
        assert [start for *_, start, _ in chunks] == [0, *(stop for *_, stop in chunks[:-1])]
        assert sum(len(listed) for _, listed, *_ in chunks) == len(parts)
        sizes = [512 * (stop - start) for *_, start, stop in chunks[:-1]]
        assert min(sizes) / num_targets > 100_000
        assert max(sizes) < 300 << 20


def test_owners_are_found_in_parts_as_at_once(store, monkeypatch):
    owners = pa.chunked_array([["o7", "other"], [], ["o29", "o7", "o0"]], pa.string())
    at_once = list_vectors(store, "m1").find(owners).tolist()
    monkeypatch.setattr(shuffle, "_FOUND_AT_ONCE", 2)
    assert list_vectors(store, "m1").find(owners).tolist() == at_once
