"""How well `w2w check` finds products that are in a wrong category, by three ways. Last line: JSON.

python -m tests.bench.check_swaps [--share .03] [--seeds 10] [--of category|product_type] [--encoder NAME] [--quick]

In `catalog` of W2W_DATA (default ../shared/data) a share of the products is put into another category. Ways: `regression`, what
`w2w check` does, on vectors of --encoder, by default the default one; `neighbours`, the vote of the ten nearest other products,
which compares all with all; `head`, the class that the package's own tagger sees (kind, trained on photos by people), which
knows nothing of the shop. Precision and recall are those of the list that `w2w check` shows, with 95 % intervals by bootstrap
over products; its threshold was chosen on this catalog with other swaps. What is listed and was not planted counts as wrong,
though some of it is doubtful in the shop itself: `unplanted` is the length of the list without any swap.
"""

import argparse
import csv
import json
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import yaml

import w2w
from tests.bench.fashion import figure
from w2w.check.classes import Classes, Judged
from w2w.check.rules import ODD, SURE
from w2w.models.config import EncoderConfig
from w2w.models.encoder import Encoder
from w2w.training.tags.heads import load
from w2w.training.tags.job import TAGS

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("W2W_DATA", ROOT / ".." / "shared" / "data"))
_NEAREST, _LEAST, _LISTED = 10, 20, 1e6
_KINDS = {"longsleeve": "top", "shirt": "top", "t-shirt": "top", "outwear": "outer", "pants": "bottom", "shorts": "bottom"}
_KINDS |= {"skirt": "bottom"}


def catalog(of: str, most: int | None) -> tuple[list[Path], np.ndarray]:
    """Pictures, each once, and their categories, of those with enough products."""
    classes = yaml.safe_load((ROOT / "jobs" / "examples" / "catalog.yaml").read_text())["feed"]["category_map"]
    seen: dict[bytes, tuple[Path, str]] = {}
    with open(DATA / "catalog" / "products.csv", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            place, name = DATA / "catalog" / row["image"], row["product_type"]
            name = classes.get(name, "etc") if of == "category" else name
            if place.exists() and name != "etc":
                seen.setdefault(place.read_bytes(), (place, name))
    rows = sorted(seen.values())[:most]
    counts = Counter(name for _, name in rows)
    rows = [row for row in rows if counts[row[1]] >= _LEAST]
    return [place for place, _ in rows], np.array([name for _, name in rows])


def regression(vectors_ND: np.ndarray, codes_N: np.ndarray) -> np.ndarray:
    """Those on the list first, by how unusual their margin is; then the others."""
    classes = Classes(int(codes_N.max()) + 1)
    classes.add(vectors_ND, codes_N)
    judged = Judged(codes_N, classes.num)
    judged.add(classes.solve(), np.arange(len(codes_N)), vectors_ND)
    deviation = judged.deviations()
    listed = (judged.margin_N > SURE) & (deviation > ODD)
    return np.where(listed, _LISTED, 0) + np.where(judged.margin_N > 0, deviation, judged.margin_N)


def beyond(scores_NC: np.ndarray, codes_N: np.ndarray) -> np.ndarray:
    """By how much another category is likelier than the own one."""
    own = np.arange(len(codes_N))
    others_NC = scores_NC.copy()
    others_NC[own, codes_N] = -np.inf
    return others_NC.max(axis=1) - scores_NC[own, codes_N]


def neighbours(vectors_ND: np.ndarray, codes_N: np.ndarray) -> np.ndarray:
    cosines_NN = vectors_ND @ vectors_ND.T
    np.fill_diagonal(cosines_NN, -np.inf)
    nearest_NK = np.argsort(-cosines_NN, axis=1)[:, :_NEAREST]
    return beyond(np.eye(codes_N.max() + 1)[codes_N[nearest_NK]].mean(axis=1), codes_N)


def average_precision(margin: np.ndarray, planted: np.ndarray) -> float:
    hits = planted[np.argsort(-margin, kind="stable")]
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())


def vectors(encode: Encoder, places: list[Path]) -> np.ndarray:
    """float32 (N, D), of length 1."""
    return np.concatenate([encode(places[i : i + 64]) for i in range(0, len(places), 64)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.03, help="of the products that are swapped")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--of", choices=("category", "product_type"), default="category")
    parser.add_argument("--encoder", default=EncoderConfig().name)
    parser.add_argument("--quick", action="store_true", help="300 products, two seeds")
    options = parser.parse_args()
    places, categories = catalog(options.of, 300 if options.quick else None)
    names, codes = np.unique(categories, return_inverse=True)
    shape = vectors(w2w.load_encoder(options.encoder), places)
    ways = {"regression": lambda c: regression(shape, c), "neighbours": lambda c: neighbours(shape, c)}
    if options.of == "category":
        tagger = load(TAGS)
        head = tagger.heads["kind"].classifier
        seen = np.array([np.flatnonzero(names == _KINDS.get(label, label)).max(initial=-1) for label in head.labels])
        chances = head(vectors(w2w.load_encoder(tagger.encoder, colour=tagger.colour), places))
        sums = np.stack([chances[:, seen == n].sum(axis=1) for n in range(len(names))], axis=1)
        ways["head"] = lambda c: beyond(sums, c)
    found: dict[str, list] = {name: [] for name in ways}
    for seed in range(2 if options.quick else options.seeds):
        rng = np.random.default_rng(1000 + seed)
        planted = rng.random(len(codes)) < options.share
        swapped = np.where(planted, (codes + rng.integers(1, len(names), len(codes))) % len(names), codes)
        for name, way in ways.items():
            found[name].append((way(swapped), planted))
    result: dict = {"name": "check_swaps", "unit": "average precision", "encoder": options.encoder}
    result |= {"of": options.of, "share": options.share}
    result |= {"products": len(codes), "categories": len(names)}
    for name, runs in found.items():
        margin, planted = (np.concatenate(parts) for parts in zip(*runs))
        result[name] = {"average_precision": round(average_precision(margin, planted), 3)}
        print(name, result[name], file=sys.stderr)
    margin, planted = (np.concatenate(parts) for parts in zip(*found["regression"]))
    products = np.tile(np.arange(len(codes)), len(found["regression"]))
    listed = margin >= _LISTED
    result["regression"] |= {
        "precision": figure(planted[listed].astype(float), products[listed]),
        "recall": figure(listed[planted].astype(float), products[planted]),
        "unplanted": int((regression(shape, codes) >= _LISTED).sum()),
        "listed": round(float(listed.sum()) / len(found["regression"]), 1),
    }
    result["value"] = result["regression"]["average_precision"]
    result["ratio"] = round(result["value"] / result["neighbours"]["average_precision"], 3)
    print(json.dumps(result | {"peer": "the ten nearest"}))


if __name__ == "__main__":
    main()
