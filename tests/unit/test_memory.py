"""Arrays on disk: the same values, writable, and no file left behind."""

import tempfile

import numpy as np

from w2w.memory import give_back_memory, on_disk


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
