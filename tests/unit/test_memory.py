"""Arrays and tables on disk: the same values, and no file left behind."""

import tempfile

import numpy as np
import pyarrow as pa
import pytest

from w2w import memory
from w2w.memory import filtered_on_disk, give_back_memory, on_disk, sorted_on_disk, table_on_disk, taken_on_disk


def test_an_array_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    array = np.arange(400_000).reshape(2, -1)
    there = on_disk(array)
    assert isinstance(there.base, np.memmap)
    assert (there == array).all()
    there[1, 0] = -1
    assert there[1, 0] == -1
    assert array[1, 0] == 200_000
    assert list(tmp_path.iterdir()) == []
    strided = on_disk(array[:, ::2])
    assert (strided == array[:, ::2]).all()


def test_a_small_array_stays():
    small = np.arange(10)
    assert on_disk(small) is small
    assert on_disk(small[:0]).size == 0


def test_memory_is_given_back_and_what_is_held_stays():
    held = [np.full(100_000, i) for i in range(20)]
    give_back_memory()
    assert all((array == i).all() for i, array in enumerate(held))


def texts(rows: int, nulls: bool) -> pa.Table:
    numbers = np.random.default_rng(0).permutation(rows)
    words = pa.array([None if nulls and n % 3 == 0 else "é" * (n % 4) + str(n) for n in numbers.tolist()], pa.string())
    return pa.table(
        {"word": words, "number": pa.array(numbers), "none": pa.array(["x"] * rows), "yes": pa.array(numbers % 2 == 0)}
    )


@pytest.mark.parametrize("nulls", [False, True])
@pytest.mark.parametrize("most_text", [memory._MOST_TEXT, 700])
def test_a_table_on_disk_is_the_same_table(tmp_path, monkeypatch, nulls, most_text):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(memory, "_LARGE_ROWS", 50)
    monkeypatch.setattr(memory, "_ROWS_AT_ONCE", 32)
    monkeypatch.setattr(memory, "_MOST_TEXT", most_text)
    table = texts(500, nulls)
    batches = [table.slice(i, 30) for i in range(0, 510, 30)] + [table.slice(500)]
    there = table_on_disk(iter(batches), table.schema)
    assert there.equals(table)
    there.validate(full=True)
    assert there["word"].num_chunks == 1 if most_text > 700 else there["word"].num_chunks > 2
    rows = np.array([499, 3, 3, 0, 77] * 20)
    assert taken_on_disk(there, rows).equals(table.take(pa.array(rows)))
    for name, order in (("number", "descending"), ("word", "ascending")):
        assert sorted_on_disk(there, [(name, order)]).equals(table.sort_by([(name, order)]))
    mask = np.arange(500) % 7 != 0
    assert filtered_on_disk(there, mask).equals(table.filter(pa.array(mask)))
    assert filtered_on_disk(there, ~mask & mask).equals(table.slice(0, 0))
    assert filtered_on_disk(there, np.ones(500, bool)) is there
    assert list(tmp_path.iterdir()) == []


def test_no_rows_and_only_nulls(monkeypatch):
    monkeypatch.setattr(memory, "_LARGE_ROWS", 3)
    empty = texts(0, False)
    assert table_on_disk([], empty.schema).equals(empty)
    nulls = pa.table({"word": pa.nulls(10, pa.string())})
    assert table_on_disk([nulls], nulls.schema).equals(nulls)


def test_the_texts_of_a_table_on_disk_take_no_memory(monkeypatch):
    """Ten times as many rows, but not ten times as much."""
    monkeypatch.setattr(memory, "_LARGE_ROWS", 1000)
    one = pa.table({"word": pa.array([f"{n:064d}" for n in range(10_000)])})
    held = []
    for times in (2, 20):
        before = pa.total_allocated_bytes()
        there = sorted_on_disk(table_on_disk((one for _ in range(times)), one.schema), [("word", "ascending")])
        held.append(pa.total_allocated_bytes() - before)
        assert there.num_rows == times * one.num_rows
    assert max(held) < one.nbytes / 10
