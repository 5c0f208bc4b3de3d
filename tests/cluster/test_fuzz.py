"""2,000 broken images among 2,000 good ones: every row is out or rejected with a code, and memory is that of the good ones."""

import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest

from tests.cluster.shops import CATEGORIES, picture
from tests.cluster.test_kill import ROOT, end_session, session
from w2w import schema
from w2w.errors import RejectCode
from w2w.table import delta

NUM = 2000
pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


@pytest.fixture(autouse=True, scope="session")
def ray_cluster():
    """Ingest runs in a process of its own, whose memory is measured."""


def broken(data: bytes, rng: np.random.Generator) -> bytes:
    """One of the ways in which pictures break."""
    way = rng.integers(6)
    if way == 0:
        return data[: int(rng.integers(0, len(data)))]
    if way == 1:
        changed = bytearray(data)
        for at in rng.integers(0, len(data), 20):
            changed[at] ^= 1 << int(rng.integers(8))
        return bytes(changed)
    if way == 2:
        return b"<!doctype html><title>not found</title>" + data[:100]
    if way == 3:
        return b""
    if way == 4:
        return rng.bytes(int(rng.integers(1, 4000)))
    return b"\x89PNG\r\n\x1a\n" + data[8:]


def ingest(folder, name: str, rows: list[str], limit: float) -> tuple[int, str, float]:
    """(exit code, output, peak MB of the driver and all workers)."""
    (folder / f"{name}.csv").write_text("product_id,category,image\n" + "".join(rows))
    command = [sys.executable, "jobs/ingest.py", f"--store={folder / name}", f"--feed.uri={folder / name}.csv"]
    process = subprocess.Popen(
        [*command, f"--max_reject_rate={limit}", "--ray.num_cpus=2", "--item_rows=256"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    peak = 0.0

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            used = 0
            for child in session(process.pid):
                try:
                    if child.pid == process.pid or child.name().startswith("ray::"):
                        used += child.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak = max(peak, used / 1e6)
            time.sleep(0.2)

    watcher = threading.Thread(target=watch)
    watcher.start()
    said, _ = process.communicate(timeout=900)
    watcher.join()
    end_session(process.pid)
    return process.returncode, said, peak


def test_broken_images(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    good, bad = [], []
    for i in range(NUM):
        data = picture(rng, 192)
        (tmp_path / "images" / f"g{i}.jpg").write_bytes(data)
        (tmp_path / "images" / f"b{i}.jpg").write_bytes(broken(data, rng))
        good.append(f"g{i},{CATEGORIES[i % 3]},images/g{i}.jpg\n")
        bad.append(f"b{i},{CATEGORIES[i % 3]},images/b{i}.jpg\n")
    mixed = [row for pair in zip(good, bad) for row in pair]
    code, _, alone_mb = ingest(tmp_path, "alone", good, 0)
    assert code == 0
    code, said, mixed_mb = ingest(tmp_path, "mixed", mixed, 0.6)
    assert code == 0, said
    products = delta.read(str(tmp_path / "mixed"), schema.PRODUCTS, [schema.PRODUCT_ID]).column(0).to_pylist()
    rejects = delta.read(str(tmp_path / "mixed"), schema.REJECTS, [schema.KEY, schema.REJECT_CODE]).to_pylist()
    assert len(products) + len(rejects) == 2 * NUM
    assert {f"g{i}" for i in range(NUM)} <= set(products)
    assert {r["code"] for r in rejects} <= {c.value for c in RejectCode}
    assert len(rejects) > NUM / 2
    print(f"peak memory: {alone_mb:.0f} MB with good images alone, {mixed_mb:.0f} MB with as many broken ones")
    assert mixed_mb <= 1.2 * alone_mb
    code, said, _ = ingest(tmp_path, "strict", mixed, 0.05)
    assert code == 1
    assert "rows were rejected" in said
    assert "more than max_reject_rate=0.05 allows" in said
    assert "Traceback" not in said
