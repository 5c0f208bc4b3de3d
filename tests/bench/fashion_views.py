"""What the last stages of w2w-fashion's backbone learn from: every picture for training as it is and in several other views
(cut out, mirrored, in other light, partly hidden; colours stay what they are), as far as the stages below see it.

python -m tests.bench.fashion_views [--folder FOLDER]

computes them into FOLDER, three minutes of CPU; what is there is not computed again.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from tests.bench.fashion_rows import DATA, TRAIN, Rows, read_all
from tests.bench.folder import begin, parser_of
from w2w.images.decode import decode
from w2w.images.resize import fit
from w2w.models import sources
from w2w.models.config import LITE0, EncoderConfig, Input
from w2w.models.engines import compile_for_cpu, convert_once, pixels_module
from w2w.training.encoders.augment import AugmentConfig, augment

START = 5  # the first stage that learns
VIEWS = 4  # beside the picture as it is
_MARGIN = 0.1  # about a garment in a photo, in its longer side
# labels of the street photos as classes of people's photos
STREET = {
    "t-shirt": "t-shirt", "shirt": "shirt", "blouse": "shirt", "dress": "dress", "skirt": "skirt", "shorts": "shorts",
    "pants": "pants", "jeans": "pants", "leggings": "pants", "coat": "outwear", "jacket": "outwear", "blazer": "outwear",
    "sweater": "longsleeve", "sweatshirt": "longsleeve", "jumper": "longsleeve", "shoes": "shoes", "boots": "shoes",
    "sandals": "shoes", "hat": "hat", "bag": "bag", "purse": "bag",
}  # fmt: skip


def street() -> tuple[Rows, np.ndarray]:
    """Garments of the photos for training, and their boxes (x, y, width, height)."""
    told = json.loads((DATA / "street" / "instances.json").read_text())
    names = {c["id"]: c["name"] for c in told["categories"]}
    photos = {i["id"]: i["file_name"] for i in told["images"] if i["split"] == TRAIN}
    kept = [a for a in told["annotations"] if a["image_id"] in photos and names[a["category_id"]] in STREET]
    files = [str(DATA / "street" / photos[a["image_id"]]) for a in kept]
    labels = {"class": np.array([STREET[names[a["category_id"]]] for a in kept])}
    groups = np.array([f"s{a['image_id']}" for a in kept])
    return Rows("street", files, np.full(len(files), TRAIN), groups, labels), np.array([a["bbox"] for a in kept])


def boxed(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The box with a margin."""
    x, y, width, height = box
    (bottom, right), more = image.shape[:2], _MARGIN * max(width, height)
    left, top = int(max(0, x - more)), int(max(0, y - more))
    return image[top : int(min(bottom, y + height + more)) + 1, left : int(min(right, x + width + more)) + 1]


def below() -> Callable[[np.ndarray], np.ndarray]:
    """uint8 pixels (N, S, S, 3) -> float32 (N, C, s, s): what the stages before ``START`` make of them."""
    source = sources.of(EncoderConfig(LITE0))

    def module() -> torch.nn.Module:
        pixels = pixels_module(source)
        network = pixels.network
        pixels.network = torch.nn.Sequential(network.conv_stem, network.bn1, *network.blocks[:START])
        return pixels.eval()

    size = source.input.size_px
    compiled = compile_for_cpu(
        convert_once(["below", START, *source.weights_sha256()], module, (2, size, size, 3), (-1, size, size, 3)), 1
    )
    return lambda pixels_NHWC: compiled(np.ascontiguousarray(pixels_NHWC))[0]


def seen(rows: Rows, view: int, folder: Path, of: Callable, shape: Input, boxes: np.ndarray | None) -> np.ndarray:
    """float16 (N, C, s, s) of the rows for training. ``view``: 0 as they are."""
    places = rows.of(TRAIN)
    file = folder / f"below-{rows.name}-{len(places)}-{view}.npy".replace(" ", "-")
    if not file.exists():

        def picture(i: int) -> np.ndarray:
            image = decode(Path(rows.files[i]).read_bytes())
            image = image if boxes is None else boxed(image, boxes[i])
            image = augment(image, AugmentConfig(), np.random.default_rng([view, int(i)]), True) if view else image
            return fit(image, shape.size_px, shape.mode, shape.resample, shape.resize_px)

        starts = range(0, len(places), 32)
        parts = [of(np.stack([picture(i) for i in places[s : s + 32]])).astype(np.float16) for s in starts]
        part = file.with_suffix(f".{os.getpid()}.npy")
        np.save(part, np.concatenate(parts))
        os.replace(part, file)
    return np.load(file, mmap_mode="r")


LEARNT = {"user_photos": VIEWS, "catalog": VIEWS, "street": 2, "wardrobe train": 2}  # and how many views


def all_views(sets: Mapping[str, Rows], folder: Path) -> dict[str, list[np.ndarray]]:
    """Of each data set that is learnt from, its rows for training as they are, then in other views."""
    of, shape, boxes = below(), sources.of(EncoderConfig(LITE0)).input, street()[1]
    return {
        name: [seen(sets[name], view, folder, of, shape, boxes if name == "street" else None) for view in range(count + 1)]
        for name, count in LEARNT.items()
    }


def main() -> None:
    _, folder = begin(parser_of(__doc__))
    for name, views in all_views(read_all(folder) | {"street": street()[0]}, folder).items():
        print(name, *(view.shape for view in views))


if __name__ == "__main__":
    main()
