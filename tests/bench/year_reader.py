"""Searches a published index all the while: python -m tests.bench.year_reader INDEX FOLDER. FOLDER has queries-DIM.npy; until
a file `over` lies there, or who began it is gone, each opened index is searched a few times. Then `read.json` tells of every
version that was met what it answered, and what failed."""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from w2w.index.search import Index, open_index

K = 10
_SEARCHES, _PAUSE_S = 4, 0.05


def digest(index: Index, queries_QD: np.ndarray) -> str:
    """Of all answers, their order, and scores to four decimals."""
    hits = index.search(queries_QD, K)
    rows = zip(*(hits.column(c).to_pylist() for c in ("query", "product_id", "image_id", "score")))
    return hashlib.sha256("\n".join(f"{q} {p} {i} {s:.4f}" for q, p, i, s in rows).encode()).hexdigest()


def main() -> None:
    uri, folder = sys.argv[1], Path(sys.argv[2])
    queries = {int(f.stem.partition("-")[2]): np.load(f) for f in folder.glob("queries-*.npy")}
    answered, failed, num = dict[str, list[str]](), list[str](), 0
    parent = os.getppid()
    while not (folder / "over").exists() and os.getppid() == parent:
        try:
            index = open_index(uri)
            version, asked = index.manifest.version, queries[index.manifest.dim]
            for _ in range(_SEARCHES):
                found, num = digest(index, asked), num + 1
                answered[version] = sorted({*answered.get(version, ()), found})
                time.sleep(_PAUSE_S)
        except Exception as e:
            failed.append(f"{type(e).__name__}: {e}")
            time.sleep(_PAUSE_S)
    (folder / "read.json").write_text(json.dumps({"searches": num, "answered": answered, "failed": failed}))


if __name__ == "__main__":
    main()
