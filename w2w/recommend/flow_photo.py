"""The garments of a photo that one outfit can have."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from w2w import storage
from w2w.errors import Reject, UsageError, attempt
from w2w.find.rules import FindOptions, Garment, garments_of
from w2w.garments import boxes
from w2w.garments.detector import Detector, DetectorConfig
from w2w.garments.stage import to_jpeg
from w2w.garments.taxonomy import BOTTOM, DRESS, TOP
from w2w.images.decode import DecodeLimits, decode
from w2w.ingest.images import is_web
from w2w.models.config import EncoderConfig
from w2w.models.encoder import load_encoder
from w2w.web.fetch import FetchConfig, Fetcher

_CROP_PX = 384


@dataclass(frozen=True)
class Seen:
    """A garment of a photo: class, vector, its crop as a JPEG."""

    category: str
    vector_D: np.ndarray
    crop: bytes


def look_at(
    photo: str,
    encoder: EncoderConfig,
    detector: DetectorConfig,
    keep: str,
    limits: DecodeLimits,
    fetch: FetchConfig,
    known: Collection[str],
) -> tuple[list[Seen], list[str]]:
    """The garments of a photo, the highest-scoring one per class; and what was left out of it, in sentences. ``keep``: only
    these (classes, or numbers from the top down); ``known``: classes that the scorer knows.

    Raises UsageError if the photo cannot be read, or shows no garment."""
    try:
        data = attempt(Fetcher(fetch).get_bytes, photo) if is_web(photo) else storage.read_bytes(storage.absolute(photo))
    except OSError as e:
        raise UsageError(f"--photo={photo}: cannot be read: {e}") from e
    pixels = data if isinstance(data, Reject) else attempt(decode, data, limits)
    if isinstance(pixels, Reject):
        raise UsageError(f"--photo={photo}: {pixels}")
    (found,) = Detector(detector)([pixels])
    if isinstance(found, Reject):
        raise UsageError(f"--photo={photo}: {found}")
    garments = garments_of(found, FindOptions(garment=keep))
    if not garments:
        raise UsageError(f"--photo={photo}: no garment was found{f' of {keep}' if keep else ''}")
    garments, left_out = (garments, []) if keep else wearable(garments, known)
    model = load_encoder(encoder)
    crops = [boxes.crop(pixels, g.box, longest_px=max(_CROP_PX, model.input.resize_px)) for g in garments]
    vectors_ND = model.encode(np.stack([model.prepare(crop) for crop in crops]))
    return [Seen(str(g.category), v, to_jpeg(crop)) for g, v, crop in zip(garments, vectors_ND, crops)], left_out


def wearable(garments: Sequence[Garment], known: Collection[str]) -> tuple[list[Garment], list[str]]:
    """The garments of a photo that one outfit can have: a dress, or top and bottom, whichever scores higher, since they fill
    the same slots, and only ``known`` classes unless there is none; and what was left out, in sentences."""
    kept = [g for g in garments if g.category in known] or list(garments)
    told = [
        f"the photo's {g.category} is left out: the scorer does not know what it goes with" for g in garments if g not in kept
    ]
    surest = {g.category: g.score or 0.0 for g in kept}
    separates = max(surest.get(TOP, 0.0), surest.get(BOTTOM, 0.0))
    if DRESS in surest and separates:
        out = {TOP, BOTTOM} if surest[DRESS] >= separates else {DRESS}
        told += [
            f"the photo's {g.category} is left out: a dress and a top or bottom fill the same place, and it scores lower; "
            "--keep chooses"
            for g in kept
            if g.category in out
        ]
        kept = [g for g in kept if g.category not in out]
    return kept, told
