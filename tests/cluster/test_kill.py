"""kill -9 of the driver, of a worker and of a raylet, at moments spread over all stages: the tables end as if nothing happened."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.cluster.shops import write_shop
from w2w import schema
from w2w.index.manifest import index_uri
from w2w.index.publish import read_manifest
from w2w.table import delta

ROOT = Path(__file__).parents[2]
NUM_RUNS = int(os.environ.get("W2W_KILLS", "20"))
NUM_PRODUCTS = 80
TIMEOUT_S = 300

pytestmark = [pytest.mark.slow, pytest.mark.timeout(4 * 3600)]


@pytest.fixture(autouse=True, scope="session")
def ray_cluster():
    """These tests start Ray in processes of their own."""


def command(store: Path, feed: Path) -> list[str]:
    options = ["--commit_every_s=0.2", "--item_rows=8", "--pool.batch_rows=8", "--max_reject_rate=1"]
    return [sys.executable, "jobs/nightly.py", f"--store={store}", f"--feed.uri={feed}", *options]


def environment(address: str | None = None) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"RAY_AUTH_MODE": "disabled"}
    return env | ({"RAY_ADDRESS": address} if address else {})


def start(store: Path, feed: Path, address: str | None = None) -> subprocess.Popen:
    log = open(store.parent / f"{store.name}.log", "ab")
    return subprocess.Popen(command(store, feed), cwd=ROOT, env=environment(address), stdout=log, stderr=log, start_new_session=True)


def finish(process: subprocess.Popen, store: Path) -> None:
    try:
        code = process.wait(TIMEOUT_S)
    except subprocess.TimeoutExpired:
        code = "hang"
    finally:
        end_session(process.pid)
    assert code == 0, (code, (store.parent / f"{store.name}.log").read_text()[-3000:])


def end_session(leader: int) -> None:
    """Kills every process of the session that ``leader`` began, Ray's own daemons among them."""
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader:
                process.kill()
        except (ProcessLookupError, psutil.Error):
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


def contents(store: Path) -> dict:
    """Everything that must be equal, key by key; sorted lists, so that a double or a loss shows."""
    uri = str(store)
    manifest = read_manifest(index_uri(uri, "default"))

    def rows(table, columns):
        return sorted(map(json.dumps, delta.read(uri, table, columns).to_pylist()))

    return {
        "products": rows(schema.PRODUCTS, ["product_id", "title", "category", "image_id", "active", "row_digest"]),
        "images": rows(schema.IMAGES, ["image_id", "width", "height", "format", "phash"]),
        "embeddings": rows(schema.EMBEDDINGS, ["owner_id", "model_version", "vector"]),
        "rejects": rows(schema.REJECTS, ["key", "stage", "code"]),
        "shards": sorted((s.name, s.num_rows) for s in manifest.shards),
        "gate": (manifest.gate.passed, manifest.gate.recall),
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kill")
    feed = write_shop(folder / "shop", NUM_PRODUCTS)
    for i, bad in ((5, b""), (40, b"<html>"), (66, b"\xff\xd8\xff cut")):
        (folder / "shop" / "images" / f"{i}.jpg").write_bytes(bad)
    store = folder / "undisturbed"
    process = start(store, feed)
    finish(process, store)
    return folder, feed, contents(store), num_files(store)


def assert_equal(store: Path, expected: dict, what: str) -> None:
    got = contents(store)
    for name, value in expected.items():
        assert got[name] == value, f"{what}: {name} differs"


def moments(total: int, seed: int) -> list[int]:
    """File counts at which to kill: one in each of NUM_RUNS equal parts of the run."""
    rng = random.Random(seed)
    return [max(1, int((i + rng.random()) * total / NUM_RUNS)) for i in range(NUM_RUNS)]


def test_driver(undisturbed):
    folder, feed, expected, total = undisturbed
    killed = 0
    for i, count in enumerate(moments(total, 1)):
        store = folder / f"driver-{i}"
        process = start(store, feed)
        if wait_for_files(process, store, count):
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
        end_session(process.pid)
        finish(start(store, feed), store)
        assert_equal(store, expected, f"driver killed at file {count}")
    assert killed >= 0.8 * NUM_RUNS


def test_worker(undisturbed):
    folder, feed, expected, total = undisturbed
    killed, rng = 0, random.Random(2)
    for i, count in enumerate(moments(total, 2)):
        store = folder / f"worker-{i}"
        process = start(store, feed)
        if wait_for_files(process, store, count):
            killed += kill_one(process.pid, "ray::", rng)
        finish(process, store)
        assert_equal(store, expected, f"worker killed at file {count}")
    assert killed >= 0.5 * NUM_RUNS


def kill_one(session: int, prefix: str, rng: random.Random) -> int:
    """Kills a random busy worker of the session; 0 where there was none at this moment."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        try:
            # Ray's agents share the fate of their raylet: killing one is the other test
            if line.startswith(prefix) and "IDLE" not in line and "Agent" not in line and os.getsid(process.pid) == session:
                found.append(process)
        except ProcessLookupError:
            continue
    if not found:
        return 0
    rng.choice(found).kill()
    return 1


@pytest.fixture
def head():
    """A Ray head without CPUs of its own, and a way to add nodes to it."""
    ray = str(Path(sys.executable).parent / "ray")
    port = random.randint(20000, 40000)
    address = f"127.0.0.1:{port}"
    common = {"env": environment(), "check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    subprocess.run([ray, "start", "--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false"], **common)

    def raylets() -> set[int]:
        found = psutil.process_iter(["name", "cmdline"])
        return {p.pid for p in found if p.info["name"] == "raylet" and any(address in a for a in p.info["cmdline"])}

    def add_node() -> int:
        before = raylets()
        subprocess.run([ray, "start", f"--address={address}", "--num-cpus=2"], **common)
        (new,) = raylets() - before
        return new

    yield address, add_node
    for process in psutil.process_iter(["cmdline"]):
        if any(address in a or f"--port={port}" in a or f"--gcs_server_port={port}" in a for a in process.info["cmdline"] or []):
            process.kill()


def test_raylet(undisturbed, head):
    folder, feed, expected, total = undisturbed
    address, add_node = head
    node, killed = add_node(), 0
    for i, count in enumerate(moments(total, 3)):
        store = folder / f"raylet-{i}"
        process = start(store, feed, address)
        if wait_for_files(process, store, count):
            os.kill(node, signal.SIGKILL)
            node = add_node()
            killed += 1
        finish(process, store)
        assert_equal(store, expected, f"raylet killed at file {count}")
    assert killed >= 0.8 * NUM_RUNS
