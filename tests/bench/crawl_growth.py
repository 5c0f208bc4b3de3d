"""How the cost of downloading grows: `w2w ingest` of 50,000 image URLs against 5,000. Last line: JSON.

python -m tests.bench.crawl_growth [--rows 5000] [--times 10] [--repeat 3] [--quick]

``ratio`` is the steady rate (see crawl_vs_img2dataset) with ten times the URLs over that with ``rows`` of them;
``memory_ratio`` the same of the peak PSS of the whole process tree.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from tests.bench import image_server
from tests.bench.crawl_vs_img2dataset import DATA, medians, ours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="500 and 1,000 URLs, once: a minute")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.times, options.repeat = 500, 2, 1
    if not (DATA / "catalog" / "products.csv").exists():
        sys.exit(f"no real images at {DATA}: set W2W_DATA")
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "requests.jsonl")
        with image_server.serve(DATA / "catalog", log) as server:
            for _ in range(options.repeat):
                pair = []
                for rows in (options.rows, options.rows * options.times):
                    here = Path(folder, "ours")
                    here.mkdir()
                    pair.append(ours(here, [f"{server.url}/clean/{i:06d}.jpg" for i in range(rows)], log, None))
                    shutil.rmtree(here)
                    print(f"{rows} URLs: " + ", ".join(f"{k} {v:.1f}" for k, v in pair[-1].items()), file=sys.stderr)
                pairs.append(pair)
    result = {
        "name": "crawl_growth",
        "ratio": round(statistics.median(many["steady_rate"] / few["steady_rate"] for few, many in pairs), 3),
        "value": round(statistics.median(many["steady_rate"] for _, many in pairs), 1),
        "unit": "images/s, steady",
        "peer": f"itself at {options.rows} URLs",
        "machine": f"{os.cpu_count()} cores",
        "memory_ratio": round(statistics.median(many["peak_mb"] / few["peak_mb"] for few, many in pairs), 3),
        "rows": options.rows * options.times,
        "few": medians([few for few, _ in pairs]),
        "many": medians([many for _, many in pairs]),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
