"""What `w2w plan` says of larger catalogs, against what these then take. Last line: JSON.

python -m tests.bench.plan_check [--rows 10000 100000] [--fitted 10000] [--searched 200000] [--folder FOLDER] [--quick]

Stub vectors; nights of `index` and `similar` (all products new, nothing, ten, 1 % changed). The plan is fitted to the nights of
the smallest catalog and asked for the others; ``ratio`` is the largest factor between a step's planned and measured seconds, of
steps that took, or were to take, a second or more; ``bytes_ratio`` that of the tables and the index. With ``--fitted ROWS``
the plan is fitted to the nights of that size. Of more lists than ``--searched``, `similar` searches for a part in the first
night, spread over all: the others are made up, as in ``night_growth``, and counted as taking as long. With ``--folder`` the
stores stay there, and nights that are there are not measured again.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import numpy as np

from tests.bench.night_growth import change, made_up
from tests.bench.similar_growth import append_products, append_vectors
from w2w import storage
from w2w.engine.cluster import RayConfig, connect
from w2w.nightly import job as nightly
from w2w.nightly.flow import NIGHT
from w2w.plan import job as plan
from w2w.similar import flow_search
from w2w.similar.flow import SimilarConfig

CHANGED = (0, 10, 0.01, 0)
TURN = 2  # tasks that the two CPUs do at once


def night(store: str, changed: int) -> dict:
    """A night of two steps; what came before it is told as its changes."""
    config = nightly.Config(store=store, from_="index", until="similar", similar=SimilarConfig(), ray=RayConfig(num_cpus=2))
    uri = nightly.main(config).report.replace("index.html", NIGHT)
    found = json.loads(storage.read_bytes(uri)) | {"told": {"changed": changed}}
    storage.write_bytes(uri, json.dumps(found).encode())
    return found


@contextmanager
def part_of_the_lists(searched: int) -> Iterator[list[float]]:
    """Within, `similar` searches for about so many lists of a larger catalog; in the list, the seconds that it left out."""
    run, every, left_out = flow_search.Searches.run, flow_search.Searches._all, list[float]()

    def some(self: flow_search.Searches, function: Callable, known: object, arguments: Sequence[tuple], title: str) -> Iterator:
        most = max(TURN, round(len(arguments) * searched / len(self._catalog.goods.scope_N)) // TURN * TURN)
        if title != "search" or len(arguments) <= most:
            yield from every(self, function, known, arguments, title)
            return
        chosen = [arguments[n] for n in np.linspace(0, len(arguments) - 1, most).astype(int)]
        began = time.monotonic()
        found = list(every(self, function, known, chosen, title))
        left_out.append((time.monotonic() - began) * (len(arguments) / len(chosen) - 1))
        yield from found

    def with_others(self: flow_search.Searches, k: int) -> int:
        if len(self._catalog.goods.scope_N) > searched:
            made_up(self, k)
        return run(self, k)

    with mock.patch.object(flow_search.Searches, "_all", some), mock.patch.object(flow_search.Searches, "run", with_others):
        yield left_out


def nights(store: str, rows: int, dim: int, searched: int) -> dict[int, dict]:
    """The nights by the number of products that changed; those of a store that has had them, as they were."""
    done = Path(f"{store}.json")
    if done.exists():
        return {int(changed): one for changed, one in json.loads(done.read_bytes()).items()}
    shutil.rmtree(store, ignore_errors=True)  # of a run that was killed
    numbers = np.arange(rows)
    append_products(store, numbers, numbers, True, 0)
    append_vectors(store, numbers, dim, 0)
    with part_of_the_lists(searched) as left_out:
        found = {rows: night(store, rows)}
    found[rows]["similar"]["seconds"] += sum(left_out)
    for n, share in enumerate(CHANGED):
        changed = round(rows * share) if share < 1 else int(share)
        if changed:
            change(store, rows, changed, dim, n + 1)
        found[changed] = night(store, changed)
    done.write_text(json.dumps(found))
    return found


def factor(planned: float, measured: float) -> float:
    return round(max(planned / measured, measured / max(planned, 1e-3)), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--fitted", type=int, help="rows of the catalog whose nights the plan is fitted to")
    parser.add_argument("--searched", type=int, default=200_000)
    parser.add_argument("--folder", help="where the stores stay")
    parser.add_argument("--quick", action="store_true", help="2,000 and 20,000 rows")
    options = parser.parse_args()
    sizes = [2_000, 20_000] if options.quick else sorted(options.rows)
    connect(RayConfig(num_cpus=2))
    told, factors, bytes_factors = {}, [1.0], [1.0]
    with nullcontext(options.folder) if options.folder else tempfile.TemporaryDirectory() as folder:
        fitted = options.fitted or sizes[0]
        base = str(Path(folder, str(fitted)))
        # workers start once in a bench, and once in every real night
        nights(str(Path(folder, "warm")), sizes[0], options.dim, options.searched)
        nights(base, fitted, options.dim, options.searched)
        for rows in (size for size in sizes if size > fitted):
            store = str(Path(folder, str(rows)))
            measured = nights(store, rows, options.dim, options.searched)
            held = plan.main(plan.Config(store=store, products=rows, changed=0, nights=1)).gigabytes_in_all
            for changed, real in measured.items():
                said = plan.main(
                    plan.Config(store=base, products=rows, changed=changed / rows, nights=1, node_cpus=2, hours=1000)
                )
                for step in ("index", "similar"):
                    seconds, planned = real[step]["seconds"], said.night_s[step]
                    told[f"{rows:,} {step} {changed:,}"] = {"planned_s": planned, "measured_s": round(seconds, 2)}
                    factors += [factor(planned, seconds)] if max(seconds, planned) >= 1 else []
            bytes_factors.append(factor(said.gigabytes_in_all, held))
    result = {"name": "plan_check", "ratio": max(factors), "peer": "measured nights", "value": sizes[-1], "unit": "rows"}
    result |= {"fitted": fitted, "searched": options.searched}
    result |= {"bytes_ratio": max(bytes_factors), "machine": f"{os.cpu_count()} cores", "steps": told}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
