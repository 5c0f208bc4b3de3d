"""How the making of modified outfits grows with the wardrobe: CPU seconds and memory at 10k and 1M worn ones. Last line: JSON.

python -m tests.bench.outfit_growth [--rows 1000000] [--quick]

Each size runs in a process of its own: two modified outfits for each worn one, every row built and digested, nothing written.
CPU seconds, because other work on the machine does not change them. ``ratio`` is the small size's seconds for a row over the
large size's: 1 is linear growth, less is worse.
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
import time

import numpy as np
import polars as pl

from w2w import ids
from w2w.mining.outfits.rules import modified_rows, modify, worn_rows

COPIES = 2


def measure(rows: int) -> dict:
    """CPU seconds in all and for a row, and the process's peak memory with and without them."""
    rng = np.random.default_rng(0)
    worn = pl.DataFrame(
        {
            "image_id": sorted(ids.image_id(b"%d" % i) for i in range(rows)),
            "cluster_id": [f"{i - i % 2:09d}" for i in range(rows)],
            "split": np.array(["train", "val", "test"])[np.repeat(rng.choice(3, -(-rows // 2), p=[0.85, 0.05, 0.1]), 2)[:rows]],
            "dressed": (dressed := rng.random(rows) < 0.15),
            "one_box": dressed,
        }
    )
    modify(worn.head(10), 1, 0)  # whatever is loaded late
    before_mb, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.process_time()
    made = modify(worn, COPIES, 0)
    drawn_s = time.process_time() - start
    num = sum(t.num_rows for t in itertools.chain(worn_rows(worn), modified_rows(worn, made)))
    seconds = time.process_time() - start
    return {
        "worn": rows,
        "rows": num,
        "unmade": made.unmade,
        "draw_s": round(drawn_s, 2),
        "seconds": round(seconds, 2),
        "us_per_row": round(seconds / num * 1e6, 2),
        "wardrobe_mb": round(before_mb),
        "memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before_mb),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="20,000 outfits")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one)))
        return
    sizes = (min(10_000, args.rows), 20_000 if args.quick else args.rows)
    command = [sys.executable, "-m", "tests.bench.outfit_growth", "--one"]
    found = [json.loads(subprocess.run([*command, str(n)], check=True, capture_output=True, text=True).stdout) for n in sizes]
    for one in found:
        print(one)
    small, large = (one["us_per_row"] for one in found)
    print(json.dumps({"ratio": round(small / large, 2), "sizes": found}))


if __name__ == "__main__":
    main()
