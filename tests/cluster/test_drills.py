"""What goes wrong in a year of nights. Each drill ends with the rows and the index of nights that were left alone."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from tests.cluster.shops import write_feed, write_shop
from tests.cluster.test_kill import (
    ROOT,
    SMALL_STEPS,
    Cluster,
    contents,
    end_session,
    environment,
    finish,
    num_files,
    start_job,
    wait_for_files,
)
from w2w import schema
from w2w.index.manifest import index_uri
from w2w.index.publish import current_version, versions
from w2w.index.search import open_index
from w2w.table import delta, lease
from w2w.table.current import CurrentRows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
FIRST, ALL = 40, 60  # products of the first night, and of those after it
PAGE = 4096  # of a tmpfs
HOUR = 3600


@pytest.fixture(autouse=True, scope="session")
def ray_cluster():
    """These tests start Ray in processes of their own."""


def night(store: Path, feed: Path, *options: str) -> subprocess.Popen:
    return start_job("nightly", store, None, f"--feed.uri={feed}", "--ray.num_cpus=2", *options)


def everything(store: Path) -> dict:
    """``contents``, and what each product is now."""
    columns = [schema.PRODUCT_ID, schema.TITLE, schema.CATEGORY, schema.ACTIVE]
    current = CurrentRows(str(store), schema.PRODUCTS).batches(columns)
    return contents(store) | {"now": sorted(map(str, (row for batch in current for row in batch.to_pylist())))}


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> tuple[Path, Path, Path]:
    """Feeds of three nights: some products, all of them with two bad pictures, and all with other titles."""
    folder = tmp_path_factory.mktemp("drills") / "shop"
    write_shop(folder, ALL)
    for number, bad in ((5, b""), (50, b"<html>")):
        (folder / "images" / f"{number}.jpg").write_bytes(bad)
    feeds = []
    for num, title in ((FIRST, "product"), (ALL, "product"), (ALL, "thing")):
        text = write_feed(folder, range(num)).read_text()
        feeds.append(folder / f"feed-{len(feeds)}.csv")
        feeds[-1].write_text(text.replace("product ", f"{title} "))
    return feeds[0], feeds[1], feeds[2]


@pytest.fixture(scope="module")
def base(shop) -> Path:
    """The store after the first night."""
    store = shop[0].parents[1] / "base"
    finish(night(store, shop[0]), store)
    return store


@pytest.fixture(scope="module")
def alone(shop, base) -> Path:
    """The store after a second night that was left alone."""
    store = Path(shutil.copytree(base, base.parent / "alone"))
    finish(night(store, shop[1]), store)
    return store


@contextmanager
def disk(where: Path) -> Iterator[Callable[[int], None]]:
    """A disk of its own at ``where``; gives a function that makes it that large, in bytes."""
    where.mkdir()
    if os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "w2w", where], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    try:
        yield lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", where], check=True)
    finally:
        subprocess.run(["umount", "-l", where], check=True)


def used(store: Path) -> int:
    return sum(-(-os.path.getsize(Path(at, name)) // PAGE) * PAGE for at, _, names in os.walk(store) for name in names)


@pytest.mark.parametrize("share", [0.1, 0.7])
def test_a_disk_that_is_full(shop, base, alone, tmp_path, share):
    """The night ends with a sentence; once there is room, it is done by the next."""
    store = tmp_path / "store"
    with disk(store) as resize:
        shutil.copytree(base, store, dirs_exist_ok=True)
        resize(used(store) + int(share * (used(alone) - used(store))))
        process = night(store, shop[1])
        code = process.wait(300)
        end_session(process.pid)
        said = (tmp_path / "store.log").read_text()
        assert code == 1, said[-3000:]
        assert "No space left" in said
        assert "Traceback" not in said
        resize(64 << 20)
        finish(night(store, shop[1]), store)
        assert everything(store) == everything(alone)


CLOCK = """
import datetime, importlib.machinery, os, sys, time

shift, true, true_ns, real = float(os.environ["W2W_TEST_CLOCK_S"]), time.time, time.time_ns, datetime.datetime
time.time, time.time_ns = lambda: true() + shift, lambda: true_ns() + int(shift * 1e9)


class Kind(type):
    def __instancecheck__(cls, value):
        return isinstance(value, real)

    def __getattr__(cls, name):
        return getattr(real, name)


class Shifted(metaclass=Kind):
    @staticmethod
    def now(tz=None):
        return real.now(tz) + datetime.timedelta(seconds=shift)


class Finder:
    def find_spec(self, name, path=None, target=None):
        found = importlib.machinery.PathFinder.find_spec(name, path) if name.startswith("w2w.") else None
        if found and found.loader:
            run = found.loader.exec_module

            def exec_module(module):
                run(module)
                if vars(module).get("datetime") is real:
                    module.datetime = Shifted

            found.loader.exec_module = exec_module
        return found


sys.meta_path.insert(0, Finder())
"""  # as sitecustomize.py: the clock of a process, as w2w reads it


def test_clocks_an_hour_apart(shop, base, alone, tmp_path, monkeypatch):
    """The second night's machines are an hour fast, the third's are not: what it says of the products counts all the same."""
    (tmp_path / "fast").mkdir()
    (tmp_path / "fast" / "sitecustomize.py").write_text(CLOCK)
    left, store = (Path(shutil.copytree(one, tmp_path / name)) for one, name in ((alone, "left"), (base, "store")))
    finish(night(left, shop[2]), left)
    with monkeypatch.context() as patched:
        patched.setenv("PYTHONPATH", str(tmp_path / "fast"))
        patched.setenv("W2W_TEST_CLOCK_S", str(HOUR))
        finish(night(store, shop[1]), store)
    stamps = delta.read(str(store), schema.PRODUCTS, [schema.FETCHED_AT]).column(0).to_pylist()
    assert max(stamps).timestamp() > time.time() + HOUR / 2
    finish(night(store, shop[2]), store)
    assert everything(store) == everything(left)


class Reader(threading.Thread):
    """Opens the index and searches it, again and again."""

    def __init__(self, store: Path):
        super().__init__(daemon=True)
        self.uri, self.over = index_uri(str(store), "default"), threading.Event()
        self.answered, self.versions, self.failed = 0, set[str](), list[BaseException]()

    def run(self) -> None:
        asked = np.random.default_rng(0)
        while not self.over.wait(0.02):
            try:
                index = open_index(self.uri)
                hits = index.search(asked.standard_normal((2, index.manifest.dim), np.float32), 5)
                assert hits.num_rows == 10
            except BaseException as e:
                self.failed.append(e)
            self.answered += 1
            self.versions.add(index.manifest.version)

    def end(self) -> None:
        """Checks that every search was answered, by the old version and by the new one."""
        self.over.set()
        self.join()
        assert not self.failed, self.failed[:3]
        assert len(self.versions) == 2
        assert self.answered > 20


def test_two_nights_at_once_one_of_which_dies_and_a_reader(shop, base, alone, tmp_path):
    """The later one does nothing while the earlier lives, and its work when that is dead; whoever searches always can."""
    store = Path(shutil.copytree(base, tmp_path / "store"))
    reader, before = Reader(store), num_files(store)
    reader.start()
    with lease.hold(str(store), "nightly-of-another", print):  # by this process, which lives
        second = night(store, shop[1])
        assert second.wait(300) == 1
    end_session(second.pid)
    assert "another night is at work on this store: nightly-of-another" in (tmp_path / "store.log").read_text()
    first = night(store, shop[1])
    assert wait_for_files(first, store, before + 3)
    third = night(store, shop[1])
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    end_session(first.pid)
    finish(third, store)
    reader.end()
    assert everything(store) == everything(alone)


HELD = """
import sys, time
from pathlib import Path
from w2w.engine import job
from w2w.index import publish
from w2w.nightly import job as nightly
from w2w.table import sink

moment, file, once = sys.argv[1], Path(sys.argv[2]), []


def held(module, name, is_it):
    act = getattr(module, name)

    def act_and_wait(*args, **more):
        found = act(*args, **more)
        if is_it(*args) and not once:
            once.append(file.touch())
            while file.exists():
                time.sleep(0.05)
        return found

    setattr(module, name, act_and_wait)


if moment == "commit":
    held(sink, "commit_parts", lambda store, table, opened, receipts, *_: table.name == "images" and receipts)
else:
    held(publish, "write_version", lambda *_: True)
job.start(nightly.main, nightly.Config, sys.argv[3:], "w2w nightly")
"""  # a night that waits at a moment for as long as a file is there


def held_night(store: Path, feed: Path, address: str, moment: str) -> tuple[subprocess.Popen, Path]:
    file = store.parent / "held"
    command = [sys.executable, "-c", HELD, moment, str(file), f"--store={store}", f"--feed.uri={feed}", *SMALL_STEPS]
    with (store.parent / f"{store.name}.log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment(address), stdout=log, stderr=log, start_new_session=True
        ), file  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    made.stop()


@pytest.mark.parametrize("whose", ["driver", pytest.param("workers", marks=pytest.mark.soak)])
@pytest.mark.parametrize("moment", ["commit", "publish"])
def test_a_node_that_is_preempted_during(moment, whose, shop, base, alone, cluster, tmp_path):
    """Of two nodes one is lost: between the commit of the pictures and that of their products, or between the files of an index
    version and the one that names it. With its driver the night ends, and the next one works on the node that is left; without
    it the night goes on there."""
    store = Path(shutil.copytree(base, tmp_path / "store"))
    lost, reader = cluster.node, Reader(store)
    cluster.node = cluster.add_node()
    reader.start()
    driver, held = held_night(store, shop[1], cluster.address, moment)
    while not held.exists():
        assert driver.poll() is None, (tmp_path / "store.log").read_text()[-3000:]
        time.sleep(0.02)
    if moment == "commit":
        images, products = (delta.open_table(str(store), table).version() for table in (schema.IMAGES, schema.PRODUCTS))
        assert images > delta.open_table(str(base), schema.IMAGES).version()
        assert products == delta.open_table(str(base), schema.PRODUCTS).version()
    else:
        uri = index_uri(str(store), "default")
        assert versions(uri)[-1] != current_version(uri)
    if whose == "driver":
        end_session(driver.pid)
    cluster.lose(lost)
    held.unlink()
    if whose == "driver":
        driver.wait()
        driver = start_job("nightly", store, cluster.address, f"--feed.uri={shop[1]}")
    finish(driver, store)
    reader.end()
    assert everything(store) == everything(alone)


@pytest.mark.soak
def test_objects_that_do_not_fit_into_memory(tmp_path):
    """Pictures of 198 MB through an object store of 75 MB, which is Ray's least."""
    feed, rng = write_shop(tmp_path / "shop", 80), np.random.default_rng(0)
    for number in range(80):
        noise = rng.integers(0, 256, (900, 900, 3), np.uint8)
        (tmp_path / "shop" / "images" / f"{number}.jpg").write_bytes(simplejpeg.encode_jpeg(noise, quality=98))
    small, large = tmp_path / "small", tmp_path / "large"
    finish(night(large, feed), large)
    finish(night(small, feed, "--ray.object_store_mb=75"), small)
    assert everything(small) == everything(large)
