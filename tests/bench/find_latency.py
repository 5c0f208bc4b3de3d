"""How long a photo takes once `w2w find` is warm, part by part, and photos/s in batch against a bare loop. Last line: JSON.

python -m tests.bench.find_latency [--rows 200] [--repeat 5] [--quick]

The shop is `catalog`, the photos are those of `street`. Warm: one photo at a time through ``w2w.load_finder``'s parts, on all
cores. Batch: the stages of the job in this process, from files to answers with titles and prices, against a loop that reads,
decodes, detects, crops, cuts out, embeds and searches with the same models and threads, 8 photos at a time, and no more. Both
in turn, by the clock and by the CPU time of all threads, which another's load changes little.
"""

import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import yaml

import w2w
from tests.bench.throughput import CORES, DATA, in_turn, options_of
from w2w.find.answers import Catalog, answer
from w2w.find.finder import Find, Finder, Models, Plan, plan_of
from w2w.find.flow import Asked, Here, How
from w2w.find.photos import listed
from w2w.find.rules import FindOptions
from w2w.find.stage import stored
from w2w.garments import boxes, masks
from w2w.garments.pixels import masks_of
from w2w.images.decode import DecodeLimits, decode
from w2w.images.resize import shrink
from w2w.ingest.feed import FeedConfig
from w2w.memory import keep_memory
from w2w.stage import Pool
from w2w.web.fetch import ListedFetchConfig

LONGEST_PX, BATCH = 1600, 8
PARTS = ("read and decode", "detect", "crop", "embed", "search", "tell")


def shop(store: str) -> Plan:
    """The catalog as `jobs/examples/catalog.yaml` has it, indexed."""
    config = yaml.safe_load((Path(__file__).parents[2] / "jobs" / "examples" / "catalog.yaml").read_text())
    feed = config["feed"] | {"uri": str(DATA / "catalog" / "products.csv")}
    w2w.nightly(store=store, feed=feed, encoder={"threads": CORES}, pool={"num_cpus": CORES})
    return plan_of(store, FindOptions(), Models()).on_all_cores()


def seconds_of_parts(finder: Finder, catalog: Catalog, file: Path) -> list[float]:
    """Of one photo: PARTS."""
    times = [time.perf_counter()]

    def timed(work: Callable):
        found = work()
        times.append(time.perf_counter())
        return found

    photo = timed(lambda: shrink(decode(file.read_bytes(), min_side_px_wanted=LONGEST_PX), LONGEST_PX))
    found = timed(lambda: finder.crops.detect([photo]))
    garments = finder.crops.chosen(found[0], photo)
    queries = timed(lambda: finder.queries([photo], found, [garments]))
    vectors_ND = timed(lambda: finder.embed(queries))
    hits = timed(lambda: finder.shelves.search(vectors_ND, [q.category for q in queries]))
    lists: dict[int, list] = {}
    for query, some in zip(queries, hits):
        lists.setdefault(query.garment, []).append(some)
    best = {g: finder.shelves.best(of_garment) for g, of_garment in lists.items()}
    finds = [stored(Find(garment, best.get(g)), 1.0) for g, garment in enumerate(garments)]
    timed(lambda: answer(file.name, photo.shape[1], photo.shape[0], finds, catalog, finder.options).line())
    return [after - before for before, after in itertools.pairwise(times)]


def profile(plan: Plan, files: list[Path]) -> dict[str, float]:
    """Milliseconds a photo: the median of each part, and of the whole, with its 95th percentile; and how many of CPU."""
    finder, catalog = Finder(plan), Catalog(plan.store)
    for file in files[:5]:
        seconds_of_parts(finder, catalog, file)
    start = time.process_time()
    ms = 1000 * np.array([seconds_of_parts(finder, catalog, file) for file in files])
    cpu_ms = 1000 * (time.process_time() - start) / len(files)  # of all threads: what another's load does not change much
    whole = ms.sum(axis=1)
    parts = {name: round(float(v), 1) for name, v in zip(PARTS, np.median(ms, axis=0))}
    return (
        parts
        | {"photo": round(float(np.median(whole)), 1), "photo, 95 %": round(float(np.quantile(whole, 0.95)), 1)}
        | {"photo, of CPU": round(cpu_ms, 1)}
    )


def job(plan: Plan, files: list[Path]) -> Callable[[], object]:
    how = How(ListedFetchConfig(), DecodeLimits(), LONGEST_PX, Pool(batch_rows=BATCH))
    here = Here(plan, None, how, "bench", Catalog(plan.store))
    asked = Asked(listed([str(f) for f in files], FeedConfig())[0])
    return lambda: here(plan.store, asked)


def bare(plan: Plan, files: list[Path]) -> Callable[[], object]:
    from w2w.garments.detector import Detector
    from w2w.index.manifest import index_uri
    from w2w.index.search import open_index
    from w2w.models.encoder import load_encoder

    detector, encoder = Detector(plan.models.detector), load_encoder(plan.models.encoder)
    index = open_index(index_uri(plan.store, plan.options.index))
    sold = index.manifest.rows_by_category()

    def loop() -> None:
        for start in range(0, len(files), BATCH):
            data = [file.read_bytes() for file in files[start : start + BATCH]]
            photos = [shrink(decode(d, min_side_px_wanted=LONGEST_PX), LONGEST_PX) for d in data]
            crops, categories = [], []
            for photo, found in zip(photos, detector(photos)):
                own = masks_of(found.pixels, photo, found.boxes_N4, found.labels, found.scores_N)
                best = dict(reversed(list(zip(found.categories, range(len(own))))))  # the surest of each class
                for category in best.keys() & sold.keys():
                    mask, box = own[best[category]], found.boxes_N4[best[category]].tolist()
                    for crop in [boxes.crop(photo, box), *([] if mask is None else [masks.crop_on_white(photo, mask, box)])]:
                        crops.append(encoder.prepare(crop))
                        categories.append(category)
            for at in range(0, len(crops), 32):
                index.search(encoder.encode(np.stack(crops[at : at + 32])), 10, categories[at : at + 32], one_per_product=True)

    return loop


def rate(work: Callable[[], object], num: int, clock: Callable[[], float]) -> float:
    """Photos a second."""
    start = clock()
    work()
    return num / (clock() - start)


def main() -> None:
    rows, repeat = options_of(__doc__, 200, 40)
    files = sorted((DATA / "street" / "photos").glob("*.jpg"))[:rows]
    if not files:
        sys.exit(f"no real images at {DATA}: set W2W_DATA")
    keep_memory()
    with tempfile.TemporaryDirectory() as folder:
        plan = shop(folder)
        ms = profile(plan, files)
        ours, theirs = job(plan, files), bare(plan, files)
        by_clock, by_cpu = (
            in_turn(partial(rate, ours, len(files), clock), partial(rate, theirs, len(files), clock), repeat)
            for clock in (time.perf_counter, time.process_time)
        )
    told = {"name": "find", "peer": "bare loop: same models and threads", "rows": len(files), "ms": ms}
    print(json.dumps(told | by_clock | {"unit": "photos/s", "of CPU": by_cpu}))


if __name__ == "__main__":
    main()
