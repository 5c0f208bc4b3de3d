"""What a night's index costs where little has changed: changes beside the shards against shards built anew. Last line: JSON.

python -m tests.bench.night_growth [--rows 70000 200000] [--changed 0 10 0.001 0.01] [--dim 128] [--quick]

Stub vectors, three categories; the job `index` as the night runs it, in a cluster of this machine that is already up. A change
below 1 is a share of the products: half of them have another picture, a quarter each are new and gone. Each night starts from
the same published index, in turn with ``layers`` (the default) and ``anew`` (``index.layer_share=0``); seconds are medians of
``--turns`` nights, ``ratio`` those with layers over those anew at the largest size and share, ``growth`` how much longer ten
changed products take at the largest size than at the smallest.
"""

import argparse
import json
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from tests.bench import similar_growth
from tests.bench.similar_growth import append_products, append_vectors
from w2w.engine.cluster import RayConfig, connect
from w2w.index import job
from w2w.index.spec import IndexConfig

KINDS = {"layers": IndexConfig().layer_share, "anew": 0.0}


def change(store: str, rows: int, changed: int, dim: int, night: int) -> None:
    """Half of the changed products have another picture, a quarter are gone, a quarter new."""
    half, quarter = changed - 2 * (changed // 4), changed // 4
    moved, gone = np.arange(half), np.arange(half, half + quarter)
    new = np.arange(quarter) + 10 * rows * night
    images = np.concatenate([moved + 5 * rows * night, new])
    append_products(store, gone, gone, False, night)
    append_products(store, np.concatenate([moved, new]), images, True, night)
    append_vectors(store, images, dim, night)


def measured(rows: int, changes: list[float], dim: int, turns: int) -> dict:
    """Seconds of the job by change and kind."""
    similar_growth.CATEGORIES = np.array(["top", "bottom", "dress"] * 7)[:7]
    found: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        base = str(Path(folder, "base"))
        numbers = np.arange(rows)
        append_products(base, numbers, numbers, True, 0)
        append_vectors(base, numbers, dim, 0)
        config = job.Config(store=base, ray=RayConfig(num_cpus=2))
        whole = job.main(config).seconds
        for share in changes:
            changed = round(rows * share) if share < 1 else int(share)
            seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
            for turn in range(turns):
                for kind, layer_share in KINDS.items():
                    store = str(Path(folder, kind))
                    shutil.copytree(base, store)
                    if changed:
                        change(store, rows, changed, dim, turn + 1)
                    result = job.main(replace(config, store=store, index=IndexConfig(layer_share=layer_share)))
                    assert bool(result.rows_in_layers) == (kind == "layers" and changed > 3)
                    seconds[kind].append(result.seconds)
                    shutil.rmtree(store)
            found[f"{changed:,}"] = {kind: round(median(some), 2) for kind, some in seconds.items()}
            print(f"{rows:,} rows, {changed:,} changed: {found[f'{changed:,}']}", flush=True)
    return {"whole_s": round(whole, 2), "changed": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[70_000, 200_000])
    parser.add_argument("--changed", type=float, nargs="+", default=[0, 10, 0.001, 0.01])
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="70,000 rows, one night each")
    options = parser.parse_args()
    sizes, turns = ([70_000], 1) if options.quick else (sorted(options.rows), options.turns)
    connect(RayConfig(num_cpus=2))
    sizes_found = {rows: measured(rows, options.changed, options.dim, turns) for rows in sizes}
    first, last = sizes_found[sizes[0]]["changed"], sizes_found[sizes[-1]]["changed"]
    most = list(last)[-1]
    result = {"name": "night_growth", "ratio": round(last[most]["layers"] / last[most]["anew"], 3), "peer": "shards built anew"}
    result |= {"value": sizes[-1], "unit": "rows", "dim": options.dim, "turns": turns, "machine": f"{os.cpu_count()} cores"}
    if "10" in first and "10" in last:
        result["growth"] = round(last["10"]["layers"] / first["10"]["layers"], 2)
    print(json.dumps(result | {"sizes": {f"{rows:,}": told for rows, told in sizes_found.items()}}))


if __name__ == "__main__":
    main()
