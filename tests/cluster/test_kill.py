"""kill -9 of the driver, a worker and a raylet, at moments spread over all stages: the tables end as if nothing happened."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.cluster.shops import write_shop
from tests.unit.recommend.stores import append, fill, product
from w2w import schema
from w2w.garments.stage import to_jpeg
from w2w.images.lookbook import file_name
from w2w.index.manifest import index_uri
from w2w.index.publish import read_manifest
from w2w.table import delta
from w2w.table.current import CurrentRows

ROOT = Path(__file__).parents[2]
NUM_PRODUCTS = 80
TIMEOUT_S = 300

pytestmark = pytest.mark.timeout(4 * 3600)


@pytest.fixture(autouse=True, scope="session")
def ray_cluster():
    """These tests start Ray in processes of their own."""


@pytest.fixture(params=[pytest.param(2, marks=pytest.mark.slow), pytest.param(20, marks=pytest.mark.soak)])
def num_kills(request) -> int:
    return request.param


SMALL_STEPS = ["--commit_every_s=0.2", "--item_rows=8", "--pool.batch_rows=8", "--max_reject_rate=1"]


def environment(address: str | None = None) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"RAY_AUTH_MODE": "disabled"}
    return env | ({"RAY_ADDRESS": address} if address else {})


def start(store: Path, feed: Path, address: str | None) -> subprocess.Popen:
    return start_job("nightly", store, address, f"--feed.uri={feed}")


def start_job(job: str, store: Path, address: str | None, *options: str) -> subprocess.Popen:
    log = (store.parent / f"{store.name}.log").open("ab")
    command = [sys.executable, f"jobs/{job}.py", f"--store={store}", *options, *SMALL_STEPS]
    return subprocess.Popen(command, cwd=ROOT, env=environment(address), stdout=log, stderr=log, start_new_session=True)


def finish(process: subprocess.Popen, store: Path) -> None:
    try:
        code = process.wait(TIMEOUT_S)
    except subprocess.TimeoutExpired:
        code = "hang"
    finally:
        end_session(process.pid)
    assert code == 0, (code, (store.parent / f"{store.name}.log").read_text()[-3000:])


def session(leader: int) -> Iterator[psutil.Process]:
    """Every process of the session that ``leader`` began, Ray's own daemons among them."""
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader:
                yield process
        except ProcessLookupError:
            continue


def end_session(leader: int) -> None:
    for process in session(leader):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def num_files(store: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(store))


def wait_for_files(process: subprocess.Popen, store: Path, count: int) -> bool:
    """True once the run has written that many files, False where it ended first."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return False
        if num_files(store) >= count:
            return True
        time.sleep(0.02)
    raise AssertionError("the run neither wrote files nor ended")


def rows_of(store: Path, table: schema.Table, columns: list[str]) -> list[str]:
    """Sorted, so that a double or a loss shows."""
    return sorted(map(json.dumps, delta.read(str(store), table, columns).to_pylist()))


def contents(store: Path) -> dict:
    """Everything that must be equal, key by key."""
    manifest = read_manifest(index_uri(str(store), "default"))
    return {
        "products": rows_of(store, schema.PRODUCTS, ["product_id", "title", "category", "image_id", "active", "row_digest"]),
        "images": rows_of(store, schema.IMAGES, ["image_id", "width", "height", "format", "phash"]),
        "embeddings": rows_of(store, schema.EMBEDDINGS, ["owner_id", "model_version", "vector"]),
        "rejects": rows_of(store, schema.REJECTS, ["key", "stage", "code"]),
        "shards": sorted((s.name, s.num_rows) for s in manifest.shards),
        "gate": (manifest.gate.passed, manifest.gate.recall),
    }


class Cluster:
    """A Ray head without CPUs of its own, and one node with two, which can be lost and replaced."""

    def __init__(self):
        self._ray, self._port = str(Path(sys.executable).parent / "ray"), random.randint(20000, 40000)
        self.address = f"127.0.0.1:{self._port}"
        self._start("--head", f"--port={self._port}", "--num-cpus=0", "--include-dashboard=false")
        self.node = self.add_node()

    def add_node(self) -> int:
        """The process of its raylet."""
        before = self._raylets()
        self._start(f"--address={self.address}", "--num-cpus=2")
        (new,) = self._raylets() - before
        return new

    def lose(self, node: int) -> None:
        end_session(os.getsid(node))  # the raylet and all that `ray start` began with it

    def replace_node(self) -> None:
        self.lose(self.node)
        self.node = self.add_node()

    def busy_workers(self) -> list[psutil.Process]:
        """Workers of the node that do something. Its agents are left out: they share the fate of the raylet, another test."""
        found = []
        for process in psutil.process_iter(["cmdline", "ppid"]):
            line = " ".join(process.info["cmdline"] or [])
            if process.info["ppid"] == self.node and line.startswith("ray::") and "IDLE" not in line and "Agent" not in line:
                found.append(process)
        return found

    def stop(self) -> None:
        for process in psutil.process_iter(["cmdline"]):
            if any(f":{self._port}" in a or f"port={self._port}" in a for a in process.info["cmdline"] or []):
                process.kill()

    def _raylets(self) -> set[int]:
        found = [p for p in psutil.process_iter(["name", "cmdline"]) if p.info["name"] == "raylet"]
        return {p.pid for p in found if any(f":{self._port}" in a for a in p.info["cmdline"] or [])}

    def _start(self, *options: str) -> None:
        said = ""
        for _ in range(3):  # on a busy machine a node may miss Ray's own deadline for starting
            process = subprocess.Popen(
                [self._ray, "start", *options],
                env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            )  # fmt: skip
            said, _ = process.communicate(timeout=120)
            if process.returncode == 0:
                return
            end_session(process.pid)
        raise AssertionError(said)


@pytest.fixture(scope="module")
def cluster():
    made = Cluster()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, cluster):
    folder = tmp_path_factory.mktemp("kill")
    feed = write_shop(folder / "shop", NUM_PRODUCTS)
    for i, bad in ((5, b""), (40, b"<html>"), (66, b"\xff\xd8\xff cut")):
        (folder / "shop" / "images" / f"{i}.jpg").write_bytes(bad)
    store = folder / "undisturbed"
    finish(start(store, feed, cluster.address), store)
    return folder, feed, contents(store), num_files(store)


def assert_equal(store: Path, expected: dict, what: str) -> None:
    got = contents(store)
    for name, value in expected.items():
        assert got[name] == value, f"{what}: {name} differs"


def moments(total: int, count: int, seed: int) -> list[int]:
    """File counts at which to kill: one in each of ``count`` equal parts of the run."""
    rng = random.Random(seed)
    return [max(1, int((i + rng.random()) * total / count)) for i in range(count)]


def kill_drivers(
    begin: Callable[[Path], subprocess.Popen],
    runs: Iterable[tuple[Path, int]],
    check: Callable[[Path, str], None],
    least: int,
) -> None:
    """Starts a job on each store, kills its driver when the store has so many files, starts it again, and checks the store. At
    least ``least`` of the drivers must still be there to be killed."""
    killed = 0
    for store, count in runs:
        process = begin(store)
        if wait_for_files(process, store, count):
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
        finish(begin(store), store)
        check(store, f"driver killed at file {count}")
        print(f"{store.name}: killed at file {count}, equal", flush=True)
    assert killed >= least


def test_driver(undisturbed, cluster, num_kills):
    folder, feed, expected, total = undisturbed
    times = moments(total, num_kills, 1)
    stores = [folder / f"driver-{i}-of-{num_kills}" for i in range(len(times))]
    kill_drivers(
        lambda store: start(store, feed, cluster.address),
        zip(stores, times, strict=True),
        lambda store, what: assert_equal(store, expected, what),
        least=int(0.8 * num_kills),
    )


def test_worker(undisturbed, cluster, num_kills):
    folder, feed, expected, total = undisturbed
    killed, rng = 0, random.Random(2)
    for i, count in enumerate(moments(total, num_kills, 2)):
        store = folder / f"worker-{i}-of-{num_kills}"
        process = start(store, feed, cluster.address)
        what = "nobody"
        if wait_for_files(process, store, count):
            while process.poll() is None and not (busy := cluster.busy_workers()):
                time.sleep(0.02)  # between two stages nobody works
            if busy:
                victim = rng.choice(busy)
                what = victim.info["cmdline"][0]
                victim.kill()
                killed += 1
        finish(process, store)
        assert_equal(store, expected, f"{what} killed at file {count}")
        print(f"worker {i}: {what} killed at file {count} of {total}, equal", flush=True)
    assert killed >= int(0.7 * num_kills)


@pytest.mark.soak  # a node that comes back late on a busy machine outlasts the retries
def test_raylet(undisturbed, cluster, num_kills):
    folder, feed, expected, total = undisturbed
    killed = 0
    for i, count in enumerate(moments(total, num_kills, 3)):
        store = folder / f"raylet-{i}-of-{num_kills}"
        process = start(store, feed, cluster.address)
        if wait_for_files(process, store, count):
            cluster.replace_node()
            killed += 1
        finish(process, store)
        assert_equal(store, expected, f"raylet killed at file {count}")
        print(f"raylet {i}: killed at file {count} of {total}, equal", flush=True)
    assert killed >= int(0.8 * num_kills)


def test_driver_of_convert(cluster, tmp_path, num_kills):
    """A public set becomes several tables and a snapshot: killed between any two of them, it ends with the same rows."""
    book, rng = tmp_path / "book", np.random.default_rng(0)
    book.mkdir()
    for number in range(90):
        data = to_jpeg(rng.integers(0, 256, (60, 40, 3), np.uint8)) if number not in (30, 31) else b"<html>"
        (book / file_name(number // 3, number, clean=number % 3 == 0)).write_bytes(data)

    def begin(store: Path) -> subprocess.Popen:
        return start_job("convert", store, cluster.address, "--set.format=lookbook", f"--set.path={book}")

    def tables(store: Path) -> dict:
        return {
            "products": rows_of(store, schema.PRODUCTS, ["product_id", "image_id", "active"]),
            "posts": rows_of(store, schema.POSTS, ["post_id", "image_id", "product_ids"]),
            "images": rows_of(store, schema.IMAGES, ["image_id", "width"]),
            "garments": rows_of(store, schema.GARMENTS, ["garment_id", "image_id", "category", "box_xyxy"]),
            "pairs": rows_of(store, schema.PAIRS, ["pair_id", "garment_id", "product_id", "split", "source"]),
            "rejects": rows_of(store, schema.REJECTS, ["key", "stage", "code"]),
        }

    def check(store: Path, what: str) -> None:
        assert tables(store) == expected, what

    whole = tmp_path / "whole"
    finish(begin(whole), whole)
    expected = tables(whole)
    assert [len(expected[name]) for name in ("products", "posts", "pairs")] == [29, 59, 58]
    times = moments(num_files(whole), num_kills, 4)
    runs = [(tmp_path / f"killed-{i}", count) for i, count in enumerate(times)]
    kill_drivers(begin, runs, check, least=int(0.5 * len(times)))


def test_driver_of_recommend(cluster, tmp_path, num_kills):
    """The second night of a whole catalog, of which some changed: killed at any moment, it ends with the rows of one that was
    left alone."""
    base, numbers = tmp_path / "base", range(100)
    fill(str(base), numbers, posts=120, pictures=False)

    def begin(store: Path) -> subprocess.Popen:
        few = ["--outfit.candidates=3", "--outfit.answers=2", "--shown=0", "--pool.workers=1"]
        return start_job("recommend", store, cluster.address, *few)

    def tables(store: Path) -> list[str]:
        told = [schema.PRODUCT_ID, schema.OUTFITS_LIST, schema.REASON, schema.ROW_DIGEST, schema.ACTIVE]
        newest = CurrentRows(str(store), schema.RECOMMENDATIONS).batches(told)
        offered = rows_of(store, schema.OFFERED, schema.OFFERED.schema.names)
        return [*offered, *sorted(json.dumps(row) for batch in newest for row in batch.to_pylist())]

    def check(store: Path, what: str) -> None:
        assert tables(store) == expected, what

    finish(begin(base), base)
    changed = [product(n, category="bag" if n % 2 else "dress", fetched_at=5) for n in (7, 8, 16, 31)]
    append(str(base), schema.PRODUCTS, [*changed, product(40, active=False, fetched_at=5)], "night")
    before = num_files(base)
    whole = Path(shutil.copytree(base, tmp_path / "whole"))
    finish(begin(whole), whole)
    expected = tables(whole)
    assert len(expected) == len(numbers) - 1 + len(numbers)
    times = [before + count for count in moments(num_files(whole) - before, num_kills, 5)]
    copies = ((Path(shutil.copytree(base, tmp_path / f"killed-{i}")), count) for i, count in enumerate(times))
    kill_drivers(begin, copies, check, least=int(0.5 * len(times)))


@pytest.mark.slow
def test_two_ingests_of_different_options_at_once_double_nothing(tmp_path):
    feed = write_shop(tmp_path / "shop", 60)
    store = tmp_path / "store"
    options = [f"--feed.uri={feed}", "--ray.num_cpus=1"]
    both = [start_job("ingest", store, None, *options, f"--decode.max_pixels={pixels}") for pixels in (10**6, 10**7)]
    for process in both:
        finish(process, store)
    for table, key in ((schema.PRODUCTS, schema.PRODUCT_ID), (schema.IMAGES, schema.IMAGE_ID)):
        keys = delta.read(str(store), table, [key]).column(0).to_pylist()
        assert len(keys) == len(set(keys)) == 60, table.name
