"""The stages over photos: detecting garments, and cutting people out."""

from w2w import schema
from w2w.garments.detector import DetectorConfig, detector_version
from w2w.garments.masks import MaskRules
from w2w.garments.segmenter import SegmenterConfig, segmenter_version
from w2w.garments.stage import (
    CUTOUT_GIVES,
    DETECT_GIVES,
    GARMENT_GIVES,
    GUIDE_SCHEMA,
    SEGMENT_GIVES,
    Detect,
    Segment,
    cut_garments,
    cut_out,
)
from w2w.images.decode import DecodeLimits
from w2w.images.stage import PHOTO_GIVES, to_photos
from w2w.stage import Pool, Stage

COLUMNS = (schema.IMAGE_ID, schema.BYTES, schema.WIDTH, schema.HEIGHT, schema.SOURCE_URI)  # of table `images`
_NEEDS = (*PHOTO_GIVES.names, schema.WIDTH, schema.HEIGHT)


def decode_stage(limits: DecodeLimits, longest_px: int) -> Stage:
    """bytes -> photo."""
    return Stage("decode", to_photos, (schema.BYTES,), PHOTO_GIVES, {"limits": limits, "longest_px": longest_px})


def detect_stages(detector: DetectorConfig, cut: dict, pool: Pool, gpu_pool: Pool | None) -> list[Stage]:
    """photo -> boxes -> crops. On a GPU the model has its own workers, and crops are cut on CPUs again.

    ``cut``: arguments of ``cut_garments``.
    """
    needs = (*_NEEDS, *DETECT_GIVES.names, schema.IMAGE_ID)
    return [
        Stage("detect", Detect, _NEEDS, DETECT_GIVES, {"config": detector, "version": detector_version(detector)}, gpu_pool),
        Stage("crop", cut_garments, needs, GARMENT_GIVES, cut, gpu_pool and pool),
    ]


def segment_stages(
    segmenter: SegmenterConfig, rules: MaskRules, guided: bool, cut: dict, pool: Pool, gpu_pool: Pool | None
) -> list[Stage]:
    """photo -> mask -> person on white; workers as in ``detect_stages``. ``guided``: the rows are joined with GUIDE_SCHEMA.

    ``cut``: arguments of ``cut_out``.
    """
    needs = (*_NEEDS, *(GUIDE_SCHEMA.names if guided else ()))
    model = {"config": segmenter, "rules": rules, "version": segmenter_version(segmenter)}
    return [
        Stage("segment", Segment, needs, SEGMENT_GIVES, model, gpu_pool),
        Stage("cut out", cut_out, (*needs, schema.MASK_RLE), CUTOUT_GIVES, cut, gpu_pool and pool),
    ]
