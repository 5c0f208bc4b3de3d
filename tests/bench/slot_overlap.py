"""Do the crops of an outfit tell that they come from one photo? How many pairs of crops share pixels, and how well the
default encoder's raw cosine tells what was worn from pairs and outfits of several photos (AUC). Last line: JSON.

python -m tests.bench.slot_overlap [--photos 600] [--quick]

On street photos (W2W_DATA), whose clothes do go together, and on the wardrobe's, here of garments drawn at random, where
anything above .5 comes from the photo. Cut out and cropped by the true masks and boxes. Dresses make no pair of top and bottom.
"""

import argparse
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from w2w import schema
from w2w.garments import boxes, masks
from w2w.garments.formats import AnnotationsConfig, read_annotations
from w2w.garments.taxonomy import DRESS, IGNORE, OUTER
from w2w.metrics.outfit import auc
from w2w.mining.outfits.rules import DRESSED, modify
from w2w.models.config import EncoderConfig
from w2w.models.encoder import load_encoder
from w2w.wardrobe.garment import generator, make_garment
from w2w.wardrobe.photo import street_photo

DATA = Path(os.environ.get("W2W_DATA", Path(__file__).parents[2] / ".." / "shared" / "data")) / "street"
_QUARTER = 0.25  # of the smaller crop
_COATS = 0.3  # share of the wardrobe's people who wear one
_STRANGERS = 8  # other photos that each pair is compared with
Shown = tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]  # photo, the person's mask, garments' boxes and classes


def street(count: int) -> Iterator[Shown]:
    for row in read_annotations(AnnotationsConfig(str(DATA / "instances.json"), "ccp", source="street")).to_pylist()[:count]:
        photo = np.asarray(Image.open(row[schema.IMAGE_URI]).convert("RGB"))
        mask = np.asarray(Image.open(DATA / "labels" / f"{Path(row[schema.IMAGE_URI]).stem}.png")) != 0
        found = [(o[schema.BOX], o[schema.CATEGORY] or IGNORE) for o in row[schema.OBJECTS]]
        yield photo, mask, np.array([b for b, _ in found], np.float32).reshape(-1, 4), [c for _, c in found]


def wardrobe(count: int, seed: int = 31) -> Iterator[Shown]:
    stock = [make_garment(seed, i) for i in range(3 * count)]
    for number in range(count):
        rng = generator("slot_overlap", number)
        worn = [*masks.SLOTS, *([OUTER] if rng.random() < _COATS else [])]
        of_slot = [[g for g in stock if g.category == slot] for slot in worn]
        photo = street_photo(seed, number, [some[int(rng.integers(len(some)))] for some in of_slot])
        yield photo.image, photo.person_mask, np.array([i.box_xyxy for i in photo.items]), [i.category for i in photo.items]


def judged(photos: Iterator[Shown]) -> dict[str, dict]:
    """Figures of each pair of slots."""
    encoder, pieces, crops = load_encoder(EncoderConfig()), [], []
    for photo, mask, garments_N4, categories in photos:
        found = masks.slot_crops(mask, garments_N4, categories)
        if [c.slot for c in found] != list(masks.SLOTS) or any(c.crop_source == masks.RATIOS for c in found):
            continue
        crops.append(found)
        white = masks.on_white(photo, mask)
        pieces.append(np.stack([encoder.prepare(boxes.crop(white, c.box)) for c in found]))
    vectors_N3D = np.stack([encoder.encode(p) for p in pieces])
    result: dict[str, dict] = {"photos": {"with three slots by boxes": len(crops)}}
    for a, b in itertools.combinations(range(len(masks.SLOTS)), 2):
        rows = [i for i, c in enumerate(crops) if b > 1 or c[1].crop_source == masks.BOXES]
        shared = np.array([_shared(crops[i][a].box, crops[i][b].box) for i in rows])
        one, other = vectors_N3D[rows, a], vectors_N3D[rows, b]
        worn = (one * other).sum(1)
        strange = [(one * np.roll(other, n, axis=0)).sum(1) for n in range(1, _STRANGERS + 1)]
        scores = np.concatenate([worn, *strange])
        result[f"{masks.SLOTS[a]}, {masks.SLOTS[b]}"] = {
            "pairs": len(rows),
            "share pixels": round(float((shared > 0).mean()), 3),
            "over a quarter of the smaller": round(float((shared > _QUARTER).mean()), 3),
            "AUC of raw cosine": round(auc(scores, np.arange(len(scores)) < len(rows)), 3),
        }
    result["outfits"] = {"AUC of mean raw cosine": round(_outfits(crops, vectors_N3D), 3)}
    return result


def _outfits(crops: list[list[masks.SlotCrop]], vectors_N3D: np.ndarray) -> float:
    """AUC of worn outfits against those that `w2w compose` makes of them, dresses included."""
    names = [f"{i:06d}" for i in range(len(crops))]
    worn = pl.DataFrame({schema.IMAGE_ID: names, schema.CLUSTER_ID: names, schema.SPLIT: ["test"] * len(crops)})
    dressed = [c[1].crop_source == DRESS for c in crops]
    made = modify(worn.with_columns(pl.Series(DRESSED, dressed)), _STRANGERS, seed=0)
    items_O3 = np.concatenate([np.repeat(np.arange(len(crops))[:, None], 3, axis=1), made.items])
    outfits_O3D = vectors_N3D[items_O3, np.arange(3)]
    cosines = [(outfits_O3D[:, a] * outfits_O3D[:, b]).sum(-1) for a, b in itertools.combinations(range(3), 2)]
    return auc(np.mean(cosines, axis=0), np.arange(len(items_O3)) < len(crops))


def _shared(a: tuple, b: tuple) -> float:
    """Share of the smaller box that is in the other too."""
    both = np.array([a, b], np.float32)
    return float(boxes.intersection(both[:1], both[1:])[0, 0] / boxes.area(both).min())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=600)
    parser.add_argument("--quick", action="store_true", help="40 photos of each")
    options = parser.parse_args()
    count = 40 if options.quick else options.photos
    result = {"wardrobe": judged(wardrobe(count))}
    if (DATA / "instances.json").exists():
        result["street"] = judged(street(count))
    print(json.dumps({"bench": "slot_overlap", **result}))


if __name__ == "__main__":
    main()
