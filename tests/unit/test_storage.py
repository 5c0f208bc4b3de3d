"""Local files: atomic writes, absolute paths, sentences for a store that cannot be written."""

import pytest

from w2w import storage
from w2w.errors import UsageError


def test_write_replaces_whole_files_and_leaves_no_part(tmp_path):
    target = str(tmp_path / "a" / "b.txt")
    storage.write_bytes(target, b"one")
    storage.write_bytes(target, b"two")
    assert storage.read_bytes(target) == b"two"
    assert [f.base_name for f in storage.list_files(str(tmp_path))] == ["b.txt"]
    storage.delete(str(tmp_path / "a"))
    storage.delete(target)
    assert not storage.exists(target)


def test_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("x/y") == str(tmp_path / "x" / "y")
    assert storage.absolute("s3://bucket/x/") == "s3://bucket/x"
    with pytest.raises(UsageError, match="'gs://b': a path is local or starts with s3://"):
        storage.absolute("gs://b")


def test_a_store_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UsageError, match=r"--store=.*file/x: cannot write there"):
        storage.check_writable(str(tmp_path / "file" / "x"), "--store")
    storage.check_writable(str(tmp_path / "new"), "--store")
    assert storage.list_files(str(tmp_path / "new")) == []
