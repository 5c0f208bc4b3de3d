"""Arrays on disk: what was written is read, and damage is noticed."""

import json
import os
import time

import numpy as np

from w2w import storage
from w2w.errors import StorageFailed
from w2w.table import mapped


def test_arrays_are_read_as_they_were_written(tmp_path):
    folder, arrays = str(tmp_path / "a"), {"one": np.arange(9).reshape(3, 3), "none": np.empty((0, 2), np.uint64)}
    streamed = np.arange(28, dtype=np.float32).reshape(7, 4)
    blocks = mapped.Streamed(7, (streamed[i : i + 3] for i in range(0, 7, 3)))
    whole: dict[str, np.ndarray] = arrays | {"turned": arrays["one"].T, "streamed": streamed}
    mapped.write(folder, {**whole, "streamed": blocks}, {"code": 1})
    found, about = mapped.read(folder)
    assert about == {"code": 1}
    for name, array in whole.items():
        assert np.array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    assert mapped.read(str(tmp_path / "b")) is None


def test_what_has_not_changed_is_hashed_once_a_week(tmp_path, monkeypatch):
    folder, hashed = str(tmp_path), []
    mapped.write(folder, {"one": np.arange(9), "two": np.arange(3)}, {})
    monkeypatch.setattr(storage, "sha256", lambda uri, sha256=storage.sha256: hashed.append(uri) or sha256(uri))
    assert mapped.read(folder)
    assert not hashed
    path = tmp_path / "one.npy"
    data = path.read_bytes()
    path.write_bytes(data)
    assert mapped.read(folder)
    assert len(hashed) == 1
    assert mapped.read(folder)
    assert len(hashed) == 1
    path.write_bytes(data[:-1] + b"x")
    os.utime(path, ns=(0, 0))
    for _ in range(2):
        assert mapped.read(folder) is None
    path.write_bytes(data)
    hashed.clear()
    monkeypatch.setattr(time, "time", lambda now=time.time(): now + 8 * 24 * 3600)
    assert mapped.read(folder)
    assert len(hashed) == 2
    for wrong in (b"", b"[]", b"{", json.dumps({"at": "x", "files": 3}).encode()):
        (tmp_path / "checked.json").write_bytes(wrong)
        assert mapped.read(folder)


def test_a_folder_that_cannot_be_written_is_read_all_the_same(tmp_path, monkeypatch):
    folder = str(tmp_path)
    mapped.write(folder, {"one": np.arange(9)}, {})
    (tmp_path / "checked.json").unlink()

    def refuse(uri, data):
        raise StorageFailed("a read-only disk")

    monkeypatch.setattr(storage, "write_bytes", refuse)
    for _ in range(2):
        assert mapped.read(folder)
