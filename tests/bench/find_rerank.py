"""What re-ranking gives on street photos of the wardrobe: garments of 120 photos against 300 products, each in its class. Last
line: JSON.

python -m tests.bench.find_rerank [--seeds 2 1] [--boxes true found] [--encoder NAME] [--folder FOLDER] [--quick]

Seed 2 is what was chosen on, seed 1 the test. Boxes are the true ones, or those that the detector found, of which the garments
count that it found in their class. Each way beside the plain crop, with paired 95 % intervals (bootstrap over garments):
``--cut_out``, the best score of crop, person on white (by U2-Net) and garment on white (by the detector's pixel head), with one
of these, or all garments on white; these alone, and sums of vectors; a padded crop, average query expansion (Chum et al.
2007; Arandjelovic and Zisserman 2012) with the n best weighted by score^alpha (Radenovic et al. 2019), and k-reciprocal
re-ranking (Zhong et al. 2017). Vectors are kept in --folder.
"""

import argparse
import csv
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

import w2w
from tests.cluster.streets import LEAST_VISIBLE, truth
from w2w.errors import Reject
from w2w.find.rules import FindOptions, garments_of
from w2w.garments import boxes, masks
from w2w.garments.boxes import person_box
from w2w.garments.detector import Detector, DetectorConfig
from w2w.garments.found import Found
from w2w.garments.masks import MaskRules
from w2w.garments.person import person_mask
from w2w.garments.pixels import masks_of
from w2w.garments.segmenter import SegmenterConfig, load_segmenter
from w2w.images.decode import decode
from w2w.models.config import EncoderConfig
from w2w.wardrobe.shop import write_shop

LONGEST_PX, PAD = 384, 0.1
TRUE, FOUND = "true", "found"
Vectors = dict[str, np.ndarray]


def embed(folder: Path, seed: int, products: int, posts: int, name: str) -> None:
    """FOLDER/SEED-BOXES-NAME.npz: vectors of products (G) and garments (C crop, PD padded, W person on white, M garment on
    white, A all garments on white), ids and classes of both."""
    shop = folder / f"shop{seed}"
    if not shop.exists():
        write_shop(shop, seed, products, posts)
    encoder, segmenter = w2w.load_encoder(name), load_segmenter(SegmenterConfig())
    detector, rules = Detector(DetectorConfig()), MaskRules()
    with open(shop / "products.csv", encoding="utf-8", newline="") as f:
        sold = list(csv.DictReader(f))
    made: dict[str, dict[str, list]] = {
        source: {key: [] for key in ("C", "PD", "W", "M", "A", "qp", "qc")} for source in (TRUE, FOUND)
    }
    for row in truth(shop).values():
        photo, items = decode((shop / row["image"]).read_bytes()), row["items"]
        [seen] = detector([photo])
        assert not isinstance(seen, Reject)
        worn = np.array([i["box_xyxy"] for i in items], np.float32)
        classes = tuple(i["category"] for i in items)
        true = Found(worn, np.ones(len(items), np.float32), classes, classes, seen.pixels)
        for source, found in ((TRUE, true), (FOUND, seen)):
            try:
                person = person_box(found.boxes_N4, found.categories)
                mask = person_mask(segmenter, photo, found.boxes_N4, found.categories, person, rules).mask
                white = masks.on_white(photo, mask, rules.feather_px)
            except Reject:
                white = photo
            assert found.pixels
            own = masks_of(found.pixels, photo, found.boxes_N4, found.labels, found.scores_N)
            alone = [photo if mask is None else masks.on_white(photo, mask, rules.feather_px) for mask in own]
            known = [mask for mask in own if mask is not None]
            every = masks.on_white(photo, np.logical_or.reduce(known), rules.feather_px) if known else photo
            asked = enumerate(range(len(items))) if source == TRUE else chosen(found, worn, classes)
            for at, number in asked:
                if items[number]["visible_fraction"] < LEAST_VISIBLE:
                    continue
                shown = {"C": photo, "PD": photo, "W": white, "M": alone[at], "A": every}
                box = found.boxes_N4[at].tolist()
                crops = [boxes.crop(image, box, PAD if key == "PD" else 0.0, LONGEST_PX) for key, image in shown.items()]
                for key, vector_D in zip(shown, encoder(crops)):
                    made[source][key].append(vector_D)
                made[source]["qp"].append(items[number]["product_id"])
                made[source]["qc"].append(classes[number])
    gallery = encoder([shop / row["image"] for row in sold])
    for source, of in made.items():
        of |= {"G": gallery, "gp": [row["product_id"] for row in sold], "gc": [row["category"] for row in sold]}
        np.savez(kept(folder, seed, source, name), **{key: np.array(values) for key, values in of.items()})


def kept(folder: Path, seed: int, source: str, name: str) -> Path:
    return folder / f"{seed}-{source}-{Path(name).name}.npz"


def chosen(found: Found, worn_N4: np.ndarray, classes: Sequence[str]) -> Iterator[tuple[int, int]]:
    """The garments that find looks for: place among the detector's, and which of what is worn it overlaps most."""
    for garment in garments_of(found, FindOptions()):
        at = found.boxes_N4.tolist().index(list(garment.box))
        ious = boxes.iou(found.boxes_N4[at : at + 1], worn_N4)[0]
        if ious.max() > 0 and classes[number := int(ious.argmax())] == garment.category:
            yield at, number


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
    masked, every = unit(z["M"]), unit(z["A"])
    yield "--cut_out", np.maximum.reduce([v @ gallery.T for v in (crop, white, masked)])
    yield "--cut_out_by=person", np.maximum(crop @ gallery.T, white @ gallery.T)
    yield "--cut_out_by=garment", np.maximum(crop @ gallery.T, masked @ gallery.T)
    yield "better of crop and all garments", np.maximum(crop @ gallery.T, every @ gallery.T)
    yield "person alone", white @ gallery.T
    yield "garment alone", masked @ gallery.T
    yield "all garments alone", every @ gallery.T
    yield "sum of crop and person", unit(crop + white) @ gallery.T
    yield "sum of crop and garment", unit(crop + masked) @ gallery.T
    yield "sum of crop, person and garment", unit(crop + white + masked) @ gallery.T
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
    parser.add_argument("--boxes", nargs="+", default=[TRUE, FOUND], choices=[TRUE, FOUND])
    parser.add_argument("--encoder", default=EncoderConfig().name)
    parser.add_argument("--folder", type=Path, help="of shops and vectors; default: one for this run")
    parser.add_argument("--quick", action="store_true", help="30 products, 8 photos")
    options = parser.parse_args()
    folder, size = options.folder or Path(tempfile.mkdtemp()), (30, 8) if options.quick else (300, 120)
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict] = {}
    for seed in options.seeds:
        for source in options.boxes:
            if not (file := kept(folder, seed, source, options.encoder)).exists():
                embed(folder, seed, *size, options.encoder)
            with np.load(file) as z:
                results[f"{seed}, {source} boxes"] = {"garments": len(z["qp"]), "ways": told(dict(z))}
    print(json.dumps({"bench": "find_rerank", "encoder": options.encoder, "seeds": results}))


if __name__ == "__main__":
    main()
