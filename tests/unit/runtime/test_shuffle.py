"""Vectors: which row is whose, and the names of rows, without keeping them."""

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.table.test_sink import EMBEDDINGS, lineage, vectors
from w2w.runtime.shuffle import list_vectors
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


def test_a_model_without_vectors(store):
    nothing = list_vectors(store, "m3")
    assert len(nothing.places) == 0
    assert nothing.find(pa.array(["o1"])).tolist() == [-1]
    assert list(nothing.names()) == []
