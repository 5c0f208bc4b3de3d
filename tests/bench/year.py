"""A year of nights of the synthetic shop, each compared with a store made from scratch. Last line: JSON.

python -m tests.bench.year [--nights 365] [--products 200] [--seed 0] [--page OUT.html] [--quick]

Every night is ``w2w nightly`` over HTTP with index, similar products and exports, in this process and with small encoders of
NumPy (no Ray, no network of torch). The script (``year_shop``) has seasons, new products and others that are sold again,
edits, withdrawals, changed and broken pictures; the supplier fails about every sixth night; on every third the driver dies at
a random write and the night is run again; in mid-year the model changes over a bridge, some nights long. After every night
the tables, vectors, the index's rows and answers (ids, order, scores), similar products and what the exports come to are
compared with a store that is made from scratch of what the shop's script says; a night that the supplier has spoilt has to
leave all as it was. A process of its own searches the published index all the while.

Beside it, as far as they can do it, LanceDB (merge, delete, optimize) and a rebuild by autofaiss of the same vectors, each in
an environment of its own: seconds, bytes, recall and stale answers of each night (``--no-peers`` leaves them out).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from tests.bench import year_page, year_peers
from tests.bench.index_vectors import progress
from tests.bench.year_encoder import DIMS, SECOND
from tests.bench.year_model import Catalog, Held, differences, exact
from tests.bench.year_reader import digest
from tests.bench.year_shop import FAULT_EVERY, PICTURES_DOWN, Night, Year
from tests.bench.year_store import (
    K,
    Store,
    Supplier,
    files_of,
    from_scratch,
    in_this_process,
    old_pictures,
    queries,
)
from w2w.errors import JobFailed
from w2w.index import job as indexing
from w2w.index.manifest import index_uri
from w2w.index.publish import collect_garbage
from w2w.index.search import open_index
from w2w.index.spec import IndexConfig

LEAST_SAMPLE = 150  # pictures that the bridge is fitted to and measured on
_QUICK = 14
APPROXIMATE = IndexConfig(
    name="approximate", factory="IVF8,SQ4", nprobe=3, target_recall=0.6, layer_from_rows=2, layer_share=0.1
)


@dataclass
class Row:
    """What is told of a night. ``changed``: of last night's answers, the share that is gone; ``stale``: products that are not
    served as the shop means them, and ``age``: the nights for which the oldest of these has not been."""

    number: int
    fault: str
    crashed: bool
    upgrade: str
    error: str
    changes: dict[str, int]
    products: int = 0
    pictures: int = 0
    seconds: float = 0.0
    index_seconds: float = 0.0
    bytes: int = 0
    written: int = 0
    recall: float = 0.0
    approximate: float | None = None
    changed: float = 0.0
    stale: int = 0
    age: int = 0
    differences: list[str] = field(default_factory=list)


class Nights:
    """A store, what it has to hold, and what came of each night. ``upgrade_at``: the night that begins with a bridge."""

    def __init__(self, folder: Path, store: Store, supplier: Supplier, upgrade_at: int):
        self.store, self.rows, self.bridge = store, list[Row](), None
        self.digests: dict[str, str] = {}  # of the answers, by version of the index
        self._folder, self._supplier, self._upgrade_at = folder, supplier, upgrade_at
        self._catalog, self._wanted, self._old = Catalog(), None, frozenset[str]()
        self._answers: dict[int, set[str]] = {}
        self._stale_since: dict[str, int] = {}
        self._files: dict[str, int] = {}

    def sleep(self, night: Night) -> Row:
        self._supplier.night = night
        upgrade, crashes = self._upgrade(night), self.store.num_crashes
        result, error, seconds = self.store.sleep(night)
        if not night.is_refused:
            self._catalog.sleep(night)
        row = Row(night.number, night.fault, self.store.num_crashes > crashes, upgrade, error, dict(night.changes))
        row.seconds, row.products = seconds, len(self._catalog.active)
        row.index_seconds = result.index.seconds if result and result.index else 0.0
        mine = self.store.held()
        self._compare(night, row, mine)
        self._measure(night, row, mine)
        if self.store.encoder.bridge and not error and result and result.upgrade and not result.upgrade.left:
            self.store.encoder = SECOND  # the next night goes over
        self.rows.append(row)
        return row

    def _upgrade(self, night: Night) -> str:
        if night.number == self._upgrade_at:
            self._old = frozenset(old_pictures(self.store.uri))
            self.bridge = self.store.go_over(LEAST_SAMPLE)
            return "bridge"
        if self.store.encoder.bridge:
            return "bridged"
        return "over" if self.rows and self.rows[-1].upgrade.startswith("bridge") else ""

    def _compare(self, night: Night, row: Row, mine: Held) -> None:
        if bool(row.error) != (night.is_refused or night.fault == PICTURES_DOWN):
            row.differences.append(f"night: {row.error or 'was not refused'}")
        if row.error and self._wanted:  # nothing is published; tables have what could be read
            wanted = replace(self._wanted, products=self._catalog.active, vectors=mine.vectors)
        else:
            where = self._folder / f"scratch-{night.number}"
            wanted = from_scratch(where, self._catalog, self.store.encoder, self._old)
            shutil.rmtree(where)
        if self.store.encoder.bridge and self._wanted:  # nights over a bridge make no lists
            wanted = replace(wanted, similar=self._wanted.similar, sent=_without_lists(wanted.sent))
            mine = replace(mine, sent=_without_lists(mine.sent))
        row.differences += differences(mine, wanted)
        self._wanted = wanted

    def _measure(self, night: Night, row: Row, mine: Held) -> None:
        opened = open_index(index_uri(self.store.uri, "default"))
        asked = queries(opened.manifest.dim)
        self.digests[opened.manifest.version] = digest(opened, asked)
        vectors = {i: np.frombuffer(v, np.float32) for i, v in mine.vectors.items()}
        rows = {key: vectors[key[1]] for key in sorted(mine.rows) if key[1] in vectors}
        row.pictures, least_Q = len(rows), exact(rows, asked, K)[:, -1]
        hits = {(query, p, i) for (query, rank), (p, i, _) in mine.answers.items() if rank <= K}
        row.recall = _recall(hits, rows, asked, least_Q)
        row.approximate = self._approximate(rows, asked, least_Q)
        now = {query: {p for one, p, _ in hits if one == query} for query in range(len(asked))}
        kept = sum(len(now[query] & before) for query, before in self._answers.items())
        row.changed = 1 - kept / max(1, sum(map(len, self._answers.values()))) if self._answers else 0.0
        self._answers = now
        row.stale, row.age = self._stale(night, mine.sent)
        for name in ("default", APPROXIMATE.name):  # what the night after, a day later, would delete
            collect_garbage(index_uri(self.store.uri, name), APPROXIMATE.keep_generations, young_s=0)
        files = files_of(self.store.uri)
        row.bytes = sum(files.values())
        row.written = sum(size for name, size in files.items() if self._files.get(name) != size)
        self._files = files
        year_peers.write(self._folder / "peers" / f"{night.number:03d}.npz", rows, asked)

    def _approximate(self, rows: dict[tuple[str, str], np.ndarray], asked: np.ndarray, least_Q: np.ndarray) -> float | None:
        """Recall of a second index, with codes and lists that are not exact."""
        try:
            config = indexing.Config(store=self.store.uri, encoder=self.store.encoder, index=APPROXIMATE)
            indexing.main(config)
        except JobFailed as e:
            progress(f"the approximate index is not published: {e}")
        opened = open_index(index_uri(self.store.uri, APPROXIMATE.name))
        if opened.manifest.dim != asked.shape[1]:
            return None
        found = opened.search(asked, K)
        return _recall(
            set(zip(*(found.column(c).to_pylist() for c in ("query", "product_id", "image_id")))), rows, asked, least_Q
        )

    def _stale(self, night: Night, sent: dict[str, dict]) -> tuple[int, int]:
        """Products that are not served as the shop means them, and for how many nights the oldest of these has not been."""
        meant = Catalog(seen=self._catalog.seen)
        meant.sleep(replace(night, fault="", files=night.meant))
        served = {
            p: (d.get("title"), d.get("price"), d.get("category"), d.get("availability"), tuple(d["images"]))
            for p, d in sent.items()
        }
        wrong = {p for p in meant.active.keys() | served.keys() if meant.active.get(p) != served.get(p)}
        self._stale_since = {p: self._stale_since.get(p, night.number) for p in wrong}
        return len(wrong), max((night.number - since + 1 for since in self._stale_since.values()), default=0)


def _without_lists(sent: dict[str, dict]) -> dict[str, dict]:
    return {product: {k: v for k, v in said.items() if k != "similar"} for product, said in sent.items()}


def _recall(hits: set, rows: dict[tuple[str, str], np.ndarray], asked: np.ndarray, least_Q: np.ndarray) -> float:
    """Of the K nearest of each query, the share that was found; ties with the last of them count."""
    right = [(p, i) in rows and rows[p, i] @ asked[query] >= least_Q[query] - 1e-5 for query, p, i in hits]
    return float(sum(right) / (K * len(asked)))


class Reader:
    """A process that searches the index until it is told that the year is over."""

    def __init__(self, store: str, folder: Path):
        folder.mkdir()
        for dim in DIMS.values():
            np.save(folder / f"queries-{dim}.npy", queries(dim))
        self._folder = folder
        command = [sys.executable, "-m", "tests.bench.year_reader", index_uri(store, "default"), folder]
        self._process = subprocess.Popen(command)

    def end(self, digests: dict[str, str]) -> dict:
        """Searches, errors, answers that are not those of their version of the index, and versions that were met."""
        (self._folder / "over").touch()
        code = self._process.wait(120)
        told = json.loads((self._folder / "read.json").read_text())
        wrong = [v for v, found in told["answered"].items() if found != [digests.get(v, found[0])]]
        errors = told["failed"] + ([f"exit code {code}"] if code else [])
        known = sum(version in digests for version in told["answered"])
        return {
            "searches": told["searches"],
            "errors": errors,
            "wrong": wrong,
            "versions": len(told["answered"]),
            "known": known,
        }


def live(folder: Path, num: int, products: int, seed: int, upgrade_at: int, fault_every: int) -> tuple[Nights, dict]:
    """The year, and what its reader met."""
    (folder / "peers").mkdir(parents=True, exist_ok=True)
    supplier, year, reader = Supplier(), Year(products, seed, fault_every), None
    try:
        with in_this_process() as (clock, crashes):
            nights = Nights(folder, Store(str(folder / "store"), supplier.feed, clock, crashes), supplier, upgrade_at)
            for night in year.nights(num):
                if night.number:
                    clock.sleep()
                begun = time.monotonic()
                row = nights.sleep(night)
                reader = reader or Reader(nights.store.uri, folder / "reader")
                said = " ".join(filter(None, [row.fault, "crash" if row.crashed else "", row.upgrade]))
                progress(f"night {row.number}: {row.seconds:.1f} s of {time.monotonic() - begun:.1f} s, {said or 'quiet'}")
                for one in row.differences[:20]:
                    progress(f"  DIFFERENT {one}")
                (folder / "nights.json").write_text(json.dumps([asdict(r) for r in nights.rows]))
            return nights, reader.end(nights.digests) if reader else {}
    finally:
        supplier.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=365)
    parser.add_argument("--products", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", type=Path, help="write the page here")
    parser.add_argument("--folder", type=Path, help="keep the store and the figures of each night here")
    parser.add_argument("--no-peers", action="store_true", help="without LanceDB and autofaiss")
    parser.add_argument("--quick", action="store_true", help=f"{_QUICK} nights of 160 products, without peers")
    options = parser.parse_args()
    if options.quick:
        options.nights, options.products, options.no_peers = _QUICK, 160, True
    with tempfile.TemporaryDirectory() as temporary:
        folder, begun = options.folder or Path(temporary), time.monotonic()
        fault_every = FAULT_EVERY if not options.quick else 2
        nights, reader = live(folder, options.nights, options.products, options.seed, options.nights // 2, fault_every)
        seconds = time.monotonic() - begun
        peers = {} if options.no_peers else year_peers.measure(folder / "peers")
        result = summary(nights, reader, peers) | {"products": options.products, "seed": options.seed, "s": round(seconds)}
        if options.page:
            year_page.write(options.page, nights.rows, peers, result)
    print(json.dumps(result))


def summary(nights: Nights, reader: dict, peers: dict) -> dict:
    rows = nights.rows
    found = sum(len(row.differences) for row in rows)
    result = {"name": "year", "value": found, "unit": "differences", "nights": len(rows)}
    result |= {"crashes": nights.store.num_crashes, "faults": dict(Counter(row.fault for row in rows if row.fault))}
    result |= {"bridged": sum(row.upgrade.startswith("bridge") for row in rows), "reader": _counted(reader)}
    result |= {"changes": dict(sum((Counter(row.changes) for row in rows), Counter()))}
    result["bridge_recall"] = round(nights.bridge.recall["of old"].value, 3) if nights.bridge else None
    result |= {
        "w2w": middles(
            [asdict(row) for row in rows], ("seconds", "index_seconds", "bytes", "written", "recall", "approximate", "changed")
        )
    }
    result |= {"oldest_stale": max(row.age for row in rows), "machine": f"{os.cpu_count()} cores"}
    for name, some in peers.items():
        result[name] = some if isinstance(some, str) else middles(some, ("seconds", "bytes", "recall", "stale"))
    return result


def _counted(reader: dict) -> dict:
    return {k: len(v) if isinstance(v, list) else v for k, v in reader.items()}


def middles(rows: list[dict], names: tuple[str, ...]) -> dict[str, list[float]]:
    """Median and the worst two of each figure: the least and the largest."""
    some = {name: [row[name] for row in rows if row.get(name) is not None] for name in names}
    return {name: [round(float(f(v)), 4) for f in (np.median, min, max)] for name, v in some.items() if v}


if __name__ == "__main__":
    main()
