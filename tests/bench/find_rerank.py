"""What re-ranking gives on street photos of the wardrobe: garments of 120 photos, by their true boxes, against 300 products,
each in its class. Last line: JSON.

python -m tests.bench.find_rerank [--seeds 2 1] [--folder FOLDER] [--quick]

Seed 2 is what was chosen on, seed 1 the test. Each way beside the plain crop, with paired 95 % intervals (bootstrap over
garments): ``--cut_out`` (the better score of crop and person on white), the sum of both vectors, a padded crop, average query
expansion (Chum et al. 2007; Arandjelovic and Zisserman 2012) with the n best weighted by score^alpha (Radenovic et al. 2019),
and k-reciprocal re-ranking (Zhong et al. 2017). Vectors are kept in --folder.
"""

import argparse
import csv
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import w2w
from tests.cluster.streets import LEAST_VISIBLE, truth
from w2w.errors import Reject
from w2w.garments import boxes, masks
from w2w.garments.boxes import person_box
from w2w.garments.masks import MaskRules
from w2w.garments.person import person_mask
from w2w.garments.segmenter import SegmenterConfig, load_segmenter
from w2w.images.decode import decode
from w2w.wardrobe.shop import write_shop

LONGEST_PX, PAD = 384, 0.1
Vectors = dict[str, np.ndarray]


def embed(folder: Path, seed: int, products: int, posts: int) -> None:
    """FOLDER/SEED.npz: vectors of products (G) and garments (C crop, PD padded, W on white), ids and classes of both."""
    shop = folder / f"shop{seed}"
    write_shop(shop, seed, products, posts)
    encoder, segmenter, rules = w2w.load_encoder(), load_segmenter(SegmenterConfig()), MaskRules()
    with open(shop / "products.csv", encoding="utf-8", newline="") as f:
        sold = list(csv.DictReader(f))
    made: dict[str, list] = {name: [] for name in ("C", "PD", "W", "qp", "qc")}
    for row in truth(shop).values():
        photo, items = decode((shop / row["image"]).read_bytes()), row["items"]
        found, classes = np.array([i["box_xyxy"] for i in items], np.float32), tuple(i["category"] for i in items)
        try:
            person = person_mask(segmenter, photo, found, classes, person_box(found, classes), rules).mask
            white = masks.on_white(photo, person, rules.feather_px)
        except Reject:
            white = photo
        for item in items:
            if item["visible_fraction"] >= LEAST_VISIBLE:
                for name, image, padding in (("C", photo, 0.0), ("PD", photo, PAD), ("W", white, 0.0)):
                    made[name].append(encoder(boxes.crop(image, item["box_xyxy"], padding, LONGEST_PX)))
                made["qp"].append(item["product_id"])
                made["qc"].append(item["category"])
    made["G"] = [encoder(decode((shop / row["image"]).read_bytes())) for row in sold]
    made |= {"gp": [row["product_id"] for row in sold], "gc": [row["category"] for row in sold]}
    np.savez(folder / f"{seed}.npz", **{name: np.array(values) for name, values in made.items()})


def unit(vectors_ND: np.ndarray) -> np.ndarray:
    return vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)


def expanded(queries_QD: np.ndarray, gallery_GD: np.ndarray, same_QG: np.ndarray, n: int, alpha: float) -> np.ndarray:
    """Scores (Q, G) of average query expansion within each query's class."""
    scores_QG = np.where(same_QG, queries_QD @ gallery_GD.T, -np.inf)
    best_QN = np.argsort(-scores_QG, axis=1)[:, :n]
    weights_QN = np.clip(np.take_along_axis(scores_QG, best_QN, axis=1), 0, 1) ** alpha
    return unit(queries_QD + (weights_QN[:, :, None] * gallery_GD[best_QN]).sum(axis=1)) @ gallery_GD.T


def reciprocal(
    queries_QD: np.ndarray, gallery_GD: np.ndarray, same_QG: np.ndarray, k1: int, k2: int, weight: float
) -> np.ndarray:
    """Scores (Q, G) of k-reciprocal re-ranking within each query's class; ``weight``: of the cosine distance itself."""
    scores_QG = np.full(same_QG.shape, -np.inf)
    for q, same_G in enumerate(same_QG):
        x = np.concatenate([queries_QD[q : q + 1], gallery_GD[same_G]])
        distance = 1 - x @ x.T
        distance /= distance.max()
        order = np.argsort(distance, axis=1)
        near = {k: np.zeros(distance.shape, bool) for k in (k1, k1 // 2)}
        for k, inside in near.items():
            np.put_along_axis(inside, order[:, : k + 1], True, axis=1)
        mutual, half = (near[k] & near[k].T for k in (k1, k1 // 2))
        sets = mutual.copy()
        for i in range(len(x)):
            for j in np.flatnonzero(mutual[i]):
                if (half[j] & mutual[i]).sum() > 2 / 3 * half[j].sum():
                    sets[i] |= half[j]
        shares = np.where(sets, np.exp(-distance), 0)
        shares /= shares.sum(axis=1, keepdims=True)
        shares = shares[order[:, :k2]].mean(axis=1)
        common = np.minimum(shares[0], shares[1:]).sum(axis=1)
        scores_QG[q, same_G] = -((1 - weight) * (1 - common / (2 - common)) + weight * distance[0, 1:])
    return scores_QG


def ways(z: Vectors) -> Iterator[tuple[str, np.ndarray]]:
    """Name, scores (Q, G); the plain crop first."""
    crop, padded, white, gallery = (unit(z[name]) for name in ("C", "PD", "W", "G"))
    same_QG = z["qc"][:, None] == z["gc"]
    yield "crop", crop @ gallery.T
    yield "--cut_out", np.maximum(crop @ gallery.T, white @ gallery.T)
    yield "sum of crop and cut-out", unit(crop + white) @ gallery.T
    yield f"--padding={PAD}", padded @ gallery.T
    for n, alpha in ((1, 1), (3, 0), (3, 3), (5, 3)):
        yield f"query expansion, n={n}, alpha={alpha}", expanded(crop, gallery, same_QG, n, alpha)
    for k1, k2, weight in ((5, 1, 0.3), (10, 1, 0.7), (20, 6, 0.3)):
        yield f"k-reciprocal, k1={k1}, k2={k2}, {weight}", reciprocal(crop, gallery, same_QG, k1, k2, weight)


def hits(scores_QG: np.ndarray, z: Vectors, k: int) -> np.ndarray:
    """Whether each garment's product is among the first k of its class, (Q,)."""
    scores_QG = np.where(z["qc"][:, None] == z["gc"], scores_QG, -np.inf)
    own_Q1 = np.where(z["qp"][:, None] == z["gp"], scores_QG, -np.inf).max(axis=1, keepdims=True)
    return ((scores_QG > own_Q1).sum(axis=1) < k) & np.isfinite(own_Q1[:, 0])


def told(z: Vectors) -> list[dict]:
    """Of each way recall@1 and @5, and its difference to the crop with its interval."""
    plain: dict[int, np.ndarray] = {}
    rows = []
    for name, scores_QG in ways(z):
        row: dict[str, object] = {"way": name}
        for k in (1, 5):
            found = hits(scores_QG, z, k).astype(float)
            gain = found - plain.setdefault(k, found)
            drawn = np.random.default_rng(0).choice(gain, (2000, len(gain))).mean(axis=1)
            low, high = np.quantile(drawn, [0.025, 0.975])
            row[f"recall@{k}"] = round(found.mean(), 3)
            row[f"gain@{k}"] = [round(float(v), 3) for v in (gain.mean(), low, high)]
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--folder", type=Path, help="of shops and vectors; default: one for this run")
    parser.add_argument("--quick", action="store_true", help="30 products, 8 photos")
    options = parser.parse_args()
    folder, size = options.folder or Path(tempfile.mkdtemp()), (30, 8) if options.quick else (300, 120)
    folder.mkdir(parents=True, exist_ok=True)
    results = {}
    for seed in options.seeds:
        if not (folder / f"{seed}.npz").exists():
            embed(folder, seed, *size)
        with np.load(folder / f"{seed}.npz") as z:
            results[seed] = {"garments": len(z["qp"]), "ways": told(dict(z))}
    print(json.dumps({"bench": "find_rerank", "seeds": results}))


if __name__ == "__main__":
    main()
