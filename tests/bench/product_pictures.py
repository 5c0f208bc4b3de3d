"""Recall@1 of products that have several pictures, against that of the same products with one picture each.

python -m tests.bench.product_pictures [--encoder NAME ...] [--splits test ...]

The shop of ``views`` (a product is an sku and colour) as a feed with a column ``images``, read as w2w ingest reads it. Of each
product with two pictures or more one, drawn by the seed, is left out and asks; the feed has the others, ``main`` in front. An
answer is right if it is that product: another colour of the sku is wrong. ``product``: a product scores as its best picture.
``front``: as its front picture alone, all that a product had before it had several. ``picture``: answers are pictures, so
the first of them is that of the best product, while several of one product take the places of others in the first five.
Intervals: 95 %, bootstrap clustered by sku, over the mean of the seeds.
"""

import argparse
import csv
import json
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tests.bench.fashion_rows import DATA
from w2w.images.decode import decode
from w2w.ingest.feed import FeedConfig, read_feed
from w2w.metrics.retrieval import bootstrap
from w2w.models.config import EncoderConfig
from w2w.models.encoder import load_encoder

ENCODERS = ("efficientnet-lite0", "w2w-fashion")
SEEDS = 10
FOLDER = Path(os.path.abspath(DATA / "views"))  # as ingest names it
Key = tuple[str, str]  # sku, colour


def products(splits: Sequence[str]) -> dict[Key, list[str]]:
    """Files of each product, ``main`` first."""
    found = defaultdict(list)
    with open(FOLDER / "views.csv", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["split"] in splits:
                found[row["sku"], row["colour"]].append((row["view"] != "main", row["view"], row["image"]))
    return {key: [image for *_, image in sorted(views)] for key, views in sorted(found.items())}


def gallery(listed: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Pictures of each product, the front one first, as ingest reads them from a feed of these."""
    with tempfile.TemporaryDirectory() as folder:
        feed = Path(folder) / "feed.csv"
        with open(feed, "w", newline="", encoding="utf-8") as file:
            rows = ((name, images[0], ",".join(images[1:])) for name, images in listed.items())
            csv.writer(file).writerows([("product_id", "image", "images"), *rows])
        batches = list(read_feed(FeedConfig(uri=str(feed), image_root=str(FOLDER))))
    assert not any(batch.rejects.num_rows for batch in batches)
    rows = [row for batch in batches for row in batch.rows.to_pylist()]
    return {row["product_id"]: [row["image_uri"], *(one["uri"] for one in row["more"] or [])] for row in rows}


def embedded(name: str, files: Sequence[str]) -> dict[str, np.ndarray]:
    """The vector of each picture, by its path."""
    encoder = load_encoder(EncoderConfig(name))
    found = {}
    for start in range(0, len(files), 16):
        some = [str(FOLDER / file) for file in files[start : start + 16]]
        pixels = np.stack([encoder.prepare(decode(Path(one).read_bytes())) for one in some])
        found |= dict(zip(some, encoder.encode(pixels)))
    return found


def judged(asked: Mapping[str, str], listed: Mapping[str, Sequence[str]], vectors: Mapping[str, np.ndarray]) -> dict[str, list]:
    """Of each query in turn, whether its product is found, by figure."""
    pictures = [(name, n == 0, vectors[uri]) for name, uris in listed.items() for n, uri in enumerate(uris)]
    of, is_front = np.array([name for name, *_ in pictures]), np.array([front for _, front, _ in pictures])
    every = np.stack([vector for *_, vector in pictures])
    found = defaultdict(list)
    for name, file in asked.items():
        scores = every @ vectors[str(FOLDER / file)]
        order = np.argsort(-scores, kind="stable")
        best = list(dict.fromkeys(of[order]))  # products by their best picture
        fronts = of[order][is_front[order]]
        for k in (1, 5):
            found[f"product@{k}"].append(name in best[:k])
            found[f"front@{k}"].append(name in fronts[:k])
            found[f"picture@{k}"].append(name in of[order][:k])
    return found


def measured(name: str, splits: Sequence[str], seeds: int) -> dict:
    """The figures of an encoder as JSON."""
    shop = products(splits)
    names, several = {key: f"{key[0]}-{key[1]}" for key in shop}, [key for key, files in shop.items() if len(files) > 1]
    vectors = embedded(name, sorted({file for files in shop.values() for file in files}))
    by_seed = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        out = {key: shop[key][rng.integers(len(shop[key]))] for key in several}
        listed = gallery({names[key]: [f for f in files if f != out.get(key)] for key, files in shop.items()})
        by_seed.append(judged({names[key]: file for key, file in out.items()}, listed, vectors))
    values = {figure: np.mean([np.array(one[figure], float) for one in by_seed], axis=0) for figure in by_seed[0]}
    skus = np.array([sku for sku, _ in several])
    for k in (1, 5):
        values[f"product - front@{k}"] = values[f"product@{k}"] - values[f"front@{k}"]
        values[f"product - picture@{k}"] = values[f"product@{k}"] - values[f"picture@{k}"]
    told: dict = {"encoder": name, "queries": len(several), "skus": len(set(skus)), "products": len(shop)}
    told["pictures"] = len(vectors) - len(several)
    for figure, each in values.items():
        low, high = bootstrap(each, np.random.default_rng(0), skus)
        told[figure] = {"value": round(float(each.mean()), 3), "low": round(low, 3), "high": round(high, 3)}
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", nargs="+", default=ENCODERS)
    parser.add_argument("--splits", nargs="+", default=["train", "val", "test"])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--quick", action="store_true", help="one seed, the test split")
    options = parser.parse_args()
    if not (FOLDER / "views.csv").exists():
        sys.exit(f"no views at {DATA}: set W2W_DATA")
    splits, seeds = (["test"], 1) if options.quick else (options.splits, options.seeds)
    found = [measured(name, splits, seeds) for name in options.encoder]
    print(json.dumps({"name": "products of several pictures", "splits": splits, "seeds": seeds, "encoders": found}))


if __name__ == "__main__":
    main()
