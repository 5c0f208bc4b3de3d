"""Local files: atomic writes, absolute paths, sentences for a store that cannot be written."""

import errno
import os
import pwd
from concurrent.futures import ThreadPoolExecutor

import pytest
from pyarrow import fs

from w2w import storage
from w2w.engine.job import JobConfig, Run
from w2w.errors import Changed, StorageFailed, UsageError


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
    for uri in ("s3://", "s3:///prefix"):
        with pytest.raises(UsageError, match=f"'{uri}': names no bucket"):
            storage.absolute(uri)
    with pytest.raises(UsageError, match="'~nobody-of-this-name/x': "):
        storage.absolute("~nobody-of-this-name/x")


def test_a_store_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UsageError, match=r"--store=.*file/x: cannot write there"):
        storage.check_writable(str(tmp_path / "file" / "x"), "--store")
    storage.check_writable(str(tmp_path / "new"), "--store")
    assert storage.list_files(str(tmp_path / "new")) == []


def test_of_writers_that_expect_the_same_one_wins(tmp_path):
    uri = str(tmp_path / "a" / "CURRENT")
    storage.replace_if(uri, b"0", None)

    def count(times: int) -> None:
        for _ in range(times):
            while True:
                found = storage.read_bytes(uri)
                try:
                    storage.replace_if(uri, str(int(found) + 1).encode(), found)
                    break
                except Changed:
                    pass

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(count, [25] * 4))
    assert storage.read_bytes(uri) == b"100"
    for expected in (None, b"7"):
        with pytest.raises(Changed, match=r"CURRENT was written by another run"):
            storage.replace_if(uri, b"late", expected)


def test_a_failure_names_what_was_read_or_written(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    inside = str(tmp_path / "file" / "x")
    with pytest.raises(StorageFailed, match=r"^cannot write .*file/x: (File exists|Not a directory)$"):
        storage.write_bytes(inside, b"x")
    with pytest.raises(StorageFailed, match=r"^cannot read .*: .*[Dd]irectory"):
        storage.read_bytes(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(str(tmp_path / "none"))


def test_a_full_disk_leaves_no_part(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", full)
    target = str(tmp_path / "a")
    with pytest.raises(StorageFailed, match=rf"^cannot write {target}: No space left on device$"):
        storage.write_bytes(target, b"x")
    assert list(tmp_path.iterdir()) == []


def listed(folder) -> tuple[list[str], list[tuple[str, str]]]:
    unusable: list[tuple[str, str]] = []
    files = storage.list_files(str(folder), unusable=unusable)
    return [f.path.removeprefix(f"{folder}/") for f in files], sorted(
        (p.removeprefix(f"{folder}/"), why) for p, why in unusable
    )


def test_links_are_followed_and_never_round(tmp_path):
    here, other = tmp_path / "here", tmp_path / "other"
    (here / "a").mkdir(parents=True)
    other.mkdir()
    for path in (here / "1.jpg", here / "a" / "2.jpg", other / "3.jpg"):
        path.write_bytes(b"x")
    (here / "latest").symlink_to(".")
    (here / "a" / "up").symlink_to(here)
    (here / "alias").symlink_to("a")
    (here / "elsewhere").symlink_to(other)
    (other / "back").symlink_to(here)
    (here / "file.jpg").symlink_to("1.jpg")
    found, unusable = listed(here)
    assert found == ["1.jpg", "a/2.jpg", "alias/2.jpg", "elsewhere/3.jpg", "file.jpg"]
    assert unusable == []
    assert [f.path for f in storage.list_files(str(here), recursive=False)] == [str(here / n) for n in ("1.jpg", "file.jpg")]
    assert storage.list_files(str(tmp_path / "none")) == []


def test_what_cannot_be_named_or_read_is_told(tmp_path):
    (tmp_path / "ok.jpg").write_bytes(b"xyz")
    os.makedirs(os.fsencode(tmp_path) + b"/caf\xe9")
    for name in (b"/\xbd\xc5.jpg", b"/caf\xe9/1.jpg"):
        with open(os.fsencode(tmp_path) + name, "wb") as file:
            file.write(b"x")
    os.mkfifo(tmp_path / "pipe.jpg")
    os.symlink("itself.jpg", tmp_path / "itself.jpg")
    os.symlink("nowhere.jpg", tmp_path / "gone.jpg")
    found, unusable = listed(tmp_path)
    assert found == ["ok.jpg"]
    assert unusable == [
        ("\\xbd\\xc5.jpg", "its name is not UTF-8"),
        ("caf\\xe9/1.jpg", "its name is not UTF-8"),
        ("gone.jpg", "a link that leads nowhere"),
        ("itself.jpg", "a link that leads nowhere"),
        ("pipe.jpg", "not a plain file"),
    ]
    (info,) = storage.list_files(str(tmp_path))
    there = fs.LocalFileSystem().get_file_info(info.path)
    assert (info.size, info.mtime_ns, info.mtime) == (3, there.mtime_ns, there.mtime)


def test_nothing_is_there_under_a_name_that_cannot_be_one(tmp_path):
    for name in ("x" * 300, "x" * 5000, "a\0b", "file/x"):
        (tmp_path / "file").touch()
        assert not storage.exists(str(tmp_path / name)), name
    (tmp_path / "loop").symlink_to("loop")
    assert not storage.exists(str(tmp_path / "loop"))


def test_where_models_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("W2W_CACHE", raising=False)
    assert storage.cache_folder() == tmp_path / ".cache" / "w2w"
    for named in (str(tmp_path / "models"), "~/models"):
        monkeypatch.setenv("W2W_CACHE", named)
        assert storage.cache_folder() == tmp_path / "models"
    monkeypatch.setenv("W2W_CACHE", "")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", dict[int, pwd.struct_passwd]().__getitem__)  # a container's user without a name
    with pytest.raises(UsageError, match="no home folder: set W2W_CACHE"):
        storage.cache_folder()


def test_a_file_is_no_store(tmp_path):
    (tmp_path / "feed.csv").write_text("")
    assert storage.folder(str(tmp_path), "--store") == str(tmp_path)
    assert storage.folder("s3://bucket/x", "--store") == "s3://bucket/x"
    with pytest.raises(UsageError, match=r"^--store=.*feed.csv: is a file, and a folder is asked for$"):
        Run("embed", JobConfig(store=str(tmp_path / "feed.csv")))


def test_what_the_system_said_is_the_reason(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed, match=r"^cannot read .*/file/x: Not a directory$"):
        storage.read_bytes(str(tmp_path / "file" / "x"))
    full = OSError(errno.ENOSPC, "Error writing bytes to file. Detail: [errno 28] No space left on device")
    with pytest.raises(StorageFailed, match=r"^cannot write x: No space left on device$"), storage.named("write", "x"):
        raise full
    with pytest.raises(StorageFailed, match=r"^cannot read x: AWS Error NO_SUCH_BUCKET$"), storage.named("read", "x"):
        raise OSError("AWS Error NO_SUCH_BUCKET. Detail: of the request\nmore")


@pytest.mark.parametrize(
    ("number", "failure"), [(errno.ENOSPC, StorageFailed), (errno.EDQUOT, StorageFailed), (errno.EROFS, UsageError)]
)
def test_a_full_disk_is_no_wrong_usage(tmp_path, monkeypatch, number, failure):
    def write(*args):
        with storage.named("write", "x"):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(storage, "write_bytes", write)
    with pytest.raises((StorageFailed, UsageError), match=rf"^--store=.*: cannot write there: {os.strerror(number)}$") as found:
        storage.check_writable(str(tmp_path), "--store")
    assert found.type is failure
