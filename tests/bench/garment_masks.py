"""Masks of the garments that the default detector finds on street photos, against the annotated ones. Last line: JSON.

python -m tests.bench.garment_masks [--split test] [--quick]

Per class: found garments (IoU of the boxes >= .5), mean IoU of their masks, and that of their boxes taken as masks. ``ms``:
medians a photo of finding boxes and of the masks beside. Skips without the photos (W2W_DATA).
"""

import argparse
import json
import time

import numpy as np
from PIL import Image

from tests.bench.cutout_iou import annotated
from w2w import schema
from w2w.garments import boxes
from w2w.garments.detector import Detector, DetectorConfig
from w2w.garments.masks import from_rle
from w2w.garments.pixels import garment_of
from w2w.garments.taxonomy import CATEGORIES


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", default="test")
    parser.add_argument("--quick", action="store_true", help="12 photos")
    options = parser.parse_args()
    rows = annotated(options.split, options.quick)
    detector = Detector(DetectorConfig())
    by_class: dict[str, list[tuple[float, float]]] = {c: [] for c in CATEGORIES}
    took: dict[str, list[float]] = {"boxes": [], "masks": []}
    for row in rows:
        photo = np.asarray(Image.open(row[schema.IMAGE_URI]).convert("RGB"))
        begun = time.perf_counter()
        (found,) = detector([photo])
        found_at = time.perf_counter()
        owner = garment_of(found.pixels, photo, found.boxes_N4, found.labels, found.scores_N)
        took["boxes"].append(found_at - begun)
        took["masks"].append(time.perf_counter() - found_at)
        left = [o for o in row[schema.OBJECTS] if o[schema.CATEGORY] and o[schema.MASK_RLE]]
        for n in np.argsort(-found.scores_N):
            mine = [o for o in left if o[schema.CATEGORY] == found.categories[n]]
            if not mine:
                continue
            overlap = boxes.iou(found.boxes_N4[[n]], np.array([o[schema.BOX] for o in mine], np.float32))[0]
            if overlap.max() >= 0.5:
                one = mine[int(overlap.argmax())]
                left.remove(one)
                truth, whole = from_rle(one[schema.MASK_RLE]), np.zeros(photo.shape[:2], bool)
                x0, y0, x1, y1 = found.boxes_N4[n].round().astype(int)
                whole[y0:y1, x0:x1] = True
                by_class[found.categories[n]].append((iou(owner == n, truth), iou(whole, truth)))
    every = [one for listed in by_class.values() for one in listed]
    table = {
        name: {
            "found": len(listed),
            "mask": round(np.mean([m for m, _ in listed]), 3),
            "box": round(np.mean([b for _, b in listed]), 3),
        }
        for name, listed in (by_class | {"all": every}).items()
        if listed
    }
    ms = {name: round(1000 * float(np.median(times)), 1) for name, times in took.items()}
    result = {"name": "garment masks", "split": options.split, "photos": len(rows), "iou": table, "ms": ms}
    print(json.dumps(result | {"ratio": round(1 + ms["masks"] / ms["boxes"], 3)}))


if __name__ == "__main__":
    main()
