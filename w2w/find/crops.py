"""Photos to their garments, and garments to the pictures that are searched with: the crop, also cut out. No Ray."""

from collections.abc import Sequence

import numpy as np

from w2w.errors import Reject, attempt
from w2w.find.rules import FindOptions, Garment, garments_of
from w2w.garments import boxes, masks
from w2w.garments.boxes import person_box
from w2w.garments.detector import Detector, DetectorConfig
from w2w.garments.found import Found
from w2w.garments.masks import MaskRules
from w2w.garments.person import person_mask
from w2w.garments.pixels import masks_of
from w2w.garments.segmenter import SegmenterConfig, load_segmenter
from w2w.images.decode import decode
from w2w.images.resize import shrink

LEAST_CROP_PX = 384
_NOTHING = Found(np.empty((0, 4), np.float32), np.empty(0, np.float32), (), ())


class Crops:
    """Loads the detector, and the segmenter where the options need it. ``options``: ``decided``."""

    def __init__(self, options: FindOptions, detector: DetectorConfig, segmenter: SegmenterConfig):
        self._options = options
        self._detector = None if options.whole else Detector(detector)
        self._segmenter = load_segmenter(segmenter) if options.by_person else None

    def detect(self, photos: Sequence[np.ndarray]) -> list[Found | Reject]:
        """Boxes in each photo; none if the whole photo is searched with."""
        if self._detector is None:
            return [_NOTHING] * len(photos)
        return self._detector(photos)

    def chosen(self, found: Found, photo: np.ndarray) -> list[Garment]:
        """The garments to search for."""
        if self._options.whole:
            return [Garment(0, None, None, (0.0, 0.0, float(photo.shape[1]), float(photo.shape[0])))]
        return garments_of(found, self._options)

    def __call__(
        self, photo: np.ndarray, found: Found, garments: Sequence[Garment], longest_px: int = LEAST_CROP_PX
    ) -> list[list[np.ndarray]]:
        """Of each garment the crop and, as the options say, the same with the person, or its own pixels, on white."""
        person, own = self._person(photo, found) if garments else None, self._own_pixels(photo, found) if garments else {}
        crops = []
        for garment in garments:
            cut_out = [m for m in (person, own.get((garment.category, garment.box))) if m is not None]
            where = garment.box, self._options.padding, longest_px
            crops.append([boxes.crop(photo, *where), *(masks.crop_on_white(photo, mask, *where) for mask in cut_out)])
        return crops

    def by_number(self, encoded: bytes, longest_px: int) -> dict[int, list[np.ndarray]]:
        """As above, of a photo from its file, which is shrunk to ``longest_px``; none of one that cannot be read."""
        photo = attempt(decode, encoded, min_side_px_wanted=longest_px)
        if isinstance(photo, Reject):
            return {}
        photo = shrink(photo, longest_px)
        [found] = self.detect([photo])
        if isinstance(found, Reject):
            return {}
        garments = self.chosen(found, photo)
        return dict(zip([g.number for g in garments], self(photo, found, garments)))

    def _person(self, photo: np.ndarray, found: Found) -> np.ndarray | None:
        """The mask of the photo's person, by the segmenter; None for nobody, or an unusable mask: the other crops count."""
        if self._segmenter is None:
            return None
        person = person_box(found.boxes_N4, found.categories)
        try:
            return person_mask(self._segmenter, photo, found.boxes_N4, found.categories, person, MaskRules()).mask
        except Reject:
            return None

    def _own_pixels(self, photo: np.ndarray, found: Found) -> dict[tuple, np.ndarray | None]:
        """The mask of each garment's own pixels, by its class and box, where the detector tells them."""
        if not self._options.by_garment or found.pixels is None or not len(found.scores_N):
            return {}
        own = masks_of(found.pixels, photo, found.boxes_N4, found.labels, found.scores_N)
        return dict(zip(zip(found.categories, map(tuple, found.boxes_N4.tolist())), own))
