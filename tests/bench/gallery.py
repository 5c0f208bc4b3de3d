"""A gallery of 10,000 products: built, built again without changes, opened from its folder. Last line: JSON.

python -m tests.bench.gallery [--rows 10000] [--quick]

Products, pictures (96 x 72 px, all different) and vectors (16 dimensions) are synthetic; the index is published before.
``ratio`` is the bound of 1,000 ms over the median of 5 times, each in a new headless Chromium, from the address to two drawn
rows of cards with their pictures. Without a Chromium nothing is opened.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from tests import chromium
from tests.unit.gallery import stores
from w2w.gallery import job

BOUND_MS, TURNS = 1000.0, 5
DRAWN = """new Promise((resolve) => {
  const cards = () => [...document.querySelectorAll(".cards img")].slice(0, 16);
  const done = () => cards().length && cards().every((i) => i.complete && i.naturalWidth);
  (function look() { done() ? resolve(true) : setTimeout(look, 5); })();
})"""
SEARCH = """(() => { const start = performance.now(), form = document.forms[0];
  form.elements.q.value = "linen red 11"; form.dispatchEvent(new Event("input")); return performance.now() - start; })()"""


def opened(page: Path) -> tuple[float, float]:
    """Milliseconds until the first two rows of cards are there, and of a search over everything after that."""
    with chromium.browser() as browser:
        shown = browser.page()
        start = time.monotonic()
        shown.open(page.as_uri())
        shown.evaluate(DRAWN)
        taken = 1000 * (time.monotonic() - start)
        shown.evaluate("all().then(() => 0)")
        assert shown.faults() == []
        return taken, float(str(shown.evaluate(SEARCH)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    rows = 500 if options.quick else options.rows
    with tempfile.TemporaryDirectory() as folder:
        store, out = str(Path(folder) / "tables"), Path(folder) / "site"
        images = stores.pictures(rows)
        stores.fill(store, stores.products(rows, images), images)
        config = job.Config(store=store, out=str(out))
        first, again = job.main(config), job.main(config)
        times = sorted(opened(out / "index.html") for _ in range(TURNS)) if chromium.program() else []
        size = sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
    figures: dict[str, object] = {"name": "gallery", "rows": rows, "megabytes": round(size / 1e6, 1)}
    figures |= {"build_s": round(first.seconds, 1), "again_s": round(again.seconds, 1)}
    if times:
        middle, searches = times[TURNS // 2][0], sorted(s for _, s in times)
        figures |= {"open_ms": round(middle), "search_ms": round(searches[TURNS // 2]), "ratio": round(BOUND_MS / middle, 2)}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
