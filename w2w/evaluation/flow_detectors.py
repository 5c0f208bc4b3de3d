"""Two detectors on the annotated test photos of table `detections`: F1 of the boxes that each finds at its own threshold."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw

from w2w import schema
from w2w.engine.progress import Progress
from w2w.errors import UsageError
from w2w.evaluation.compare import Gain, f1, gains, share, won
from w2w.evaluation.flow_compare import SHOWN, Compared, Settings, decided
from w2w.garments.detector import DetectorConfig, detector_version, load_model, threshold_of, try_detector
from w2w.garments.taxonomy import CATEGORIES
from w2w.metrics.detection import Judged
from w2w.metrics.retrieval import ALL
from w2w.report.evaluation import Failure
from w2w.report.page import data_uri
from w2w.table.delta import need_table
from w2w.training.detectors.flow import LOOK_PX, Photos, list_photos, read_photos
from w2w.training.detectors.judge import judge, matches, measuring

_AT_ONCE, _SHOWN_PX = 32, 360
_METRICS: dict[str, tuple[Callable[..., np.ndarray], tuple[int, ...]]] = {  # from counts: right, wrong, missed
    "F1": (f1, (0, 1, 2)),
    "precision": (share, (0, 1)),
    "recall": (share, (0, 2)),
}


def test_photos(store: str, sources: Sequence[str] | None) -> tuple[Photos, tuple[str, ...]]:
    """The common test photos. Raises UsageError if there are none."""
    need_table(store, schema.DETECTIONS, "annotate")
    photos = list_photos(store, sources, 0.0)
    if not photos.test:
        raise UsageError("table `detections` has no test photos: see --annotations.split of 'w2w annotate'")
    return photos, photos.test


def check_detectors(config: DetectorConfig, a: str, b: str) -> None:
    """Raises UsageError if both are the same one."""
    if a == b or detector_version(replace(config, name=a)) == detector_version(replace(config, name=b)):
        raise UsageError(f"{a} and {b} are the same detector: there is nothing to compare")


def detectors(settings: Settings, config: DetectorConfig, a: str, b: str, sources: Sequence[str] | None) -> Compared:
    """A box is correct if it has the class and IoU .5, each ground-truth box once. A photo that a detector cannot process
    counts as one without detections."""
    photos, keys = test_photos(settings.store, sources)
    sides = [replace(config, name=name) for name in (a, b)]
    for side in sides:
        try_detector(side)
    models = [load_model(side) for side in sides]
    judged: list[list[Judged]] = [[], []]
    parts, kept = _parts(keys), []
    with Progress("judge", len(keys), "photos") as progress:
        for part in parts:
            read = read_photos(photos, part, LOOK_PX)
            kept += [photo.key for photo in read]  # a photo that no longer decodes is given to neither
            for found_by, side, model in zip(judged, sides, models):
                found_by += judge(measuring(side), read, model)
            progress.update(len(kept), 0)
    if not kept:
        raise UsageError("none of the test photos of table `detections` can be decoded any more")
    left_out = {"photos": len(keys) - len(kept)} if len(kept) < len(keys) else {}
    keys = tuple(kept)
    counts = [np.stack([_counts(one, side) for one in some]) for some, side in zip(judged, sides)]
    found: list[Gain] = []
    for name, (of, used) in _METRICS.items():
        for group, chosen in [(ALL, slice(None)), *((c, slice(n, n + 1)) for n, c in enumerate(CATEGORIES))]:
            mine = [[c[:, chosen, i].sum(axis=1) for i in used] for c in counts]
            if group is ALL or any(v.any() for side in mine for v in side):
                told = gains(name, mine[0], mine[1], np.full(len(keys), "", dtype=object), None, settings.seed, of)
                found.append(replace(told[0], group=group))
    found = decided(found, settings.metric)
    of, used = _METRICS[found[0].metric]
    by = won(*(of(*(c[:, :, i].sum(axis=1) for i in used)) for c in counts))
    rows = [
        [_row(photos, keys[q], [j[q] for j in judged], [c[q].sum(axis=0) for c in counts], sides) for q in some[:SHOWN]]
        for some in (by.b, by.a)
    ]
    won_by = [tuple(keys[q] for q in some) for some in (by.b, by.a)]
    versions = detector_version(sides[0]), detector_version(sides[1])
    return Compared(versions, found, len(keys), won_by[0], won_by[1], by.num_tied, rows=(rows[0], rows[1]), left_out=left_out)


def _parts(keys: Sequence[str]) -> list[Sequence[str]]:
    return [keys[i : i + _AT_ONCE] for i in range(0, len(keys), _AT_ONCE)]


def _counts(photo: Judged, config: DetectorConfig) -> np.ndarray:
    """(classes, 3): correct boxes, wrong boxes, missed garments."""
    found = matches([photo], None if config.nms_per_class else config.max_iou)
    sure = found.scores_F >= threshold_of(config)
    counts = np.zeros((len(CATEGORIES), 3), np.int64)
    for number, category in enumerate(CATEGORIES):
        mine = sure & (found.classes_F == category)
        right = int((mine & found.right_F).sum())
        counts[number] = right, int(mine.sum()) - right, list(photo.truth_classes).count(category) - right
    return counts


def _row(
    photos: Photos, key: str, judged: Sequence[Judged], counts: Sequence[np.ndarray], sides: Sequence[DetectorConfig]
) -> tuple[Failure, Failure]:
    """The photo with the boxes of A, and with those of B."""
    (photo,) = read_photos(photos, [key], LOOK_PX)
    made = []
    for name, one, (right, wrong, missed), side in zip("AB", judged, counts, sides):
        kept = one.found_scores >= threshold_of(side)
        said = f"{name}: {right} right, {wrong} wrong, {missed} missed"
        label = ", ".join(np.array(one.found_classes, dtype=object)[kept]) or "nothing"
        made.append(Failure(key, label, data_uri(_drawn(photo.sample.image, one.found_K4[kept])), said, None))
    return made[0], made[1]


def _drawn(image: np.ndarray, boxes_N4: np.ndarray) -> Image.Image:
    picture = Image.fromarray(image)
    scale = min(1.0, _SHOWN_PX / max(picture.size))
    picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    for box in boxes_N4 * scale:
        for width, colour in ((4, "black"), (2, "white")):  # visible on any photo, to everybody
            ImageDraw.Draw(picture).rectangle(box.tolist(), outline=colour, width=width)
    return picture
