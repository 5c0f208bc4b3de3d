"""Whether ``w2w find --cut_out_by=garment`` helps where the shop's pictures show its products worn, as those of `views` do:
other views of a product against the main ones, each in tops or in bottoms. Last line: JSON.

python -m tests.bench.cut_out_worn [--encoder NAME]

``val``: the skus for training, from which no model of w2w has learnt; ``test``: the others. Photos count in which the detector
finds a garment of the product's kind. Each way beside the crop, with 95 % intervals (bootstrap over skus).
"""

import argparse
import json

import numpy as np

import w2w
from tests.bench.book import TEST, VAL
from tests.bench.fashion_rows import Rows, read_views
from tests.bench.real_gain import compared
from w2w.errors import Reject
from w2w.garments import boxes, masks
from w2w.garments.detector import Detector, DetectorConfig
from w2w.garments.masks import MaskRules
from w2w.garments.pixels import masks_of
from w2w.images.decode import decode
from w2w.models.config import EncoderConfig

BOTTOMS = ("p", "sh")  # pants, shorts: the second letter on of a sku; its first is the gender
LONGEST_PX = 384


def is_bottom(skus_N: np.ndarray) -> np.ndarray:
    return np.array([sku[1:].startswith(BOTTOMS) for sku in skus_N])


def pictures_of(file: str, bottom: bool, detector: Detector) -> list[np.ndarray] | None:
    """The photo, the garment's crop, and the same with its own pixels on white; None if no such garment is found."""
    with open(file, "rb") as f:
        photo = decode(f.read())
    [found] = detector([photo])
    if isinstance(found, Reject) or found.pixels is None:
        return None
    wanted = ("bottom",) if bottom else ("top", "outer", "dress")
    own = masks_of(found.pixels, photo, found.boxes_N4, found.labels, found.scores_N)
    at = max((i for i, c in enumerate(found.categories) if c in wanted), key=lambda i: found.scores_N[i], default=None)
    if at is None:
        return None
    white = photo if own[at] is None else masks.on_white(photo, own[at], MaskRules.feather_px)
    return [photo, *(boxes.crop(image, found.boxes_N4[at].tolist(), 0.0, LONGEST_PX) for image in (photo, white))]


def told(rows: Rows, split: str, vectors_N3D: np.ndarray, bottom_N: np.ndarray) -> dict:
    """``vectors_N3D``: of the photo, the crop and the garment; NaN where no garment was found."""
    main_N, product_N = rows.labels["main"], rows.labels["product"]
    places = rows.of(split)
    shown = places[main_N[places]]
    known = places[~main_N[places] & np.isin(product_N[places], product_N[shown])]
    asked = known[np.isfinite(vectors_N3D[known, 1, 0])]
    scores_3QG = np.einsum("qkd,gd->kqg", vectors_N3D[asked], vectors_N3D[shown, 0])
    scores_3QG[:, bottom_N[asked][:, None] != bottom_N[shown]] = -2

    def hits(scores_QG: np.ndarray) -> np.ndarray:
        return (product_N[shown[scores_QG.argmax(1)]] == product_N[asked]).astype(float)

    photo_QG, crop_QG, garment_QG = scores_3QG
    answers = {
        "crop": hits(crop_QG),
        "--cut_out_by=garment": hits(np.maximum(crop_QG, garment_QG)),
        "garment alone": hits(garment_QG),
        "whole photo": hits(photo_QG),
    }
    gained = {name: compared(answers["crop"], hits_Q, rows.groups_N[asked]) for name, hits_Q in answers.items()}
    return {"photos": len(known), "with a garment": len(asked), "ways": gained}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default=EncoderConfig().name)
    options = parser.parse_args()
    encoder, detector, rows = w2w.load_encoder(options.encoder), Detector(DetectorConfig()), read_views()
    bottom_N, vectors = is_bottom(rows.labels["sku"]), []
    for file, bottom in zip(rows.files, bottom_N):
        pictures = pictures_of(file, bottom, detector)
        vectors_KD = encoder(pictures or [file])
        vectors.append(np.pad(vectors_KD, ((0, 3 - len(vectors_KD)), (0, 0)), constant_values=np.nan))
    results = {split: told(rows, split, np.stack(vectors), bottom_N) for split in (VAL, TEST)}
    print(json.dumps({"bench": "cut_out_worn", "encoder": options.encoder, **results}))


if __name__ == "__main__":
    main()
