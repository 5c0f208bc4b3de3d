"""IoU of person cut-outs with the truth on street photos, alone and guided. Last line: JSON.

python -m tests.bench.cutout_iou [--split test] [--segmenter u2netp] [--detector NAME] [--quick]

The truth is the photo's label map: every label but the ground is the person. ``alone``: the segmenter sees the photo only;
``guided``: by the boxes of its garments, from a detector where one is given, else from the annotations. The masks are those of
`w2w segment`: cleaned, and a photo that it would reject counts with IoU 0 in ``..._with_rejects``.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from w2w import schema
from w2w.errors import Reject
from w2w.garments.boxes import PersonBox, person_box
from w2w.garments.detector import Detector, DetectorConfig
from w2w.garments.formats import AnnotationsConfig, read_annotations
from w2w.garments.masks import MaskRules
from w2w.garments.person import person_mask
from w2w.garments.segmenter import SegmenterConfig, load_segmenter
from w2w.garments.taxonomy import IGNORE

DATA = Path(os.environ.get("W2W_DATA", Path(__file__).parents[2] / ".." / "shared" / "data")) / "street"


def annotated(split: str, quick: bool) -> list[dict]:
    """The street photos of a split with their annotations; the first 12 if ``quick``."""
    if not (DATA / "instances.json").exists():
        sys.exit(f"no street photos at {DATA}: set W2W_DATA")
    rows = read_annotations(AnnotationsConfig(str(DATA / "instances.json"), "ccp", source="street")).to_pylist()
    return [r for r in rows if r[schema.SPLIT] == split][: 12 if quick else None]


def guides(rows: list[dict], detector: str | None) -> dict[str, tuple[np.ndarray, list[str], PersonBox]]:
    """Boxes, classes and person of each photo."""
    model = Detector(DetectorConfig(detector)) if detector else None
    result = {}
    for row in rows:
        if model:
            (found,) = model([np.asarray(Image.open(row[schema.IMAGE_URI]).convert("RGB"))])
            boxes_N4, classes = found.boxes_N4, list(found.categories)
        else:
            # what is ignored in training (a suit, a romper) is worn all the same
            boxes_N4 = np.array([o[schema.BOX] for o in row[schema.OBJECTS]], np.float32).reshape(-1, 4)
            classes = [o[schema.CATEGORY] or IGNORE for o in row[schema.OBJECTS]]
        result[row[schema.KEY]] = boxes_N4, classes, person_box(boxes_N4, classes)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", default="test")
    parser.add_argument("--segmenter", default="u2netp")
    parser.add_argument("--detector", help="w2w-lite0, or another name that w2w detect takes")
    parser.add_argument("--quick", action="store_true", help="12 photos")
    options = parser.parse_args()
    rows = annotated(options.split, options.quick)
    segmenter = load_segmenter(SegmenterConfig(options.segmenter))
    guide = guides(rows, options.detector)
    nobody = np.empty((0, 4), np.float32), [], PersonBox(None, "none")
    overlaps: dict[str, list[float]] = {"alone": [], "guided": []}
    rejected: dict[str, dict[str, int]] = {"alone": {}, "guided": {}}
    begun = time.monotonic()
    for number, row in enumerate(rows):
        photo = np.asarray(Image.open(row[schema.IMAGE_URI]).convert("RGB"))
        truth = np.asarray(Image.open(DATA / "labels" / f"{Path(row[schema.IMAGE_URI]).stem}.png")) != 0
        for way, (boxes_N4, categories, person) in (("alone", nobody), ("guided", guide[row[schema.KEY]])):
            if way == "alone" and segmenter.needs_box:
                continue
            try:
                mask = person_mask(segmenter, photo, boxes_N4, categories, person, MaskRules()).mask
                overlaps[way].append(float((mask & truth).sum() / (mask | truth).sum()))
            except Reject as e:
                rejected[way][e.code.value] = rejected[way].get(e.code.value, 0) + 1
        if number % 25 == 24:
            print(number + 1, {k: round(float(np.mean(v)), 4) for k, v in overlaps.items() if v}, file=sys.stderr, flush=True)
    result = {
        "name": "person cut-out IoU",
        "segmenter": options.segmenter,
        "guide": options.detector or "annotated boxes",
        "split": options.split,
        "photos": len(rows),
        "seconds": round(time.monotonic() - begun),
        "aim": 0.93,
    }
    for way, values in overlaps.items():
        if values:
            result |= {
                way: round(float(np.mean(values)), 4),
                f"{way}_worst_tenth": round(float(np.quantile(values, 0.1)), 4),
                f"{way}_with_rejects": round(float(np.sum(values) / len(rows)), 4),
                f"{way}_rejects": rejected[way],
            }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
