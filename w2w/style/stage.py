"""The stage of style: photos to the most similar looks."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow as pa

from w2w import config as configuration
from w2w import schema
from w2w.errors import Reject, RejectCode, UsageError
from w2w.find.finder import Models, encoder_of
from w2w.garments.boxes import person_box
from w2w.garments.detector import Detector, DetectorConfig
from w2w.images.stage import PIXEL_HEIGHT, PIXEL_WIDTH, PIXELS, cut, photos_of
from w2w.index.manifest import index_uri
from w2w.index.publish import published, read_manifest
from w2w.index.search import QUERY, open_index
from w2w.models.config import EncoderConfig
from w2w.models.encoder import check_version, finite_rows, load_encoder, model_version
from w2w.models.looks import look_version
from w2w.stage import with_rejects
from w2w.table import delta

_CUTTING = ("revision", "taxonomy", "threshold", "thresholds", "max_iou", "nms_per_class", "max_boxes")
STYLE_GIVES = pa.schema([(schema.PERSON_BOX, schema.XYXY), (schema.NEIGHBOUR_LIST, pa.list_(schema.NEIGHBOUR))])


@dataclass(frozen=True)
class Plan:
    """What decides the answers. ``detected``: the version of the detector that cropped the looks of the index; None if they are
    whole photos, in which case queries are whole photos too."""

    store: str
    index: str
    index_version: str
    encoder: EncoderConfig
    model_version: str
    detector: DetectorConfig
    detected: str | None
    k: int

    def on_all_cores(self) -> "Plan":
        """As ``Models.on_all_cores``."""
        models = Models(self.encoder, self.detector).on_all_cores()
        return replace(self, encoder=models.encoder, detector=models.detector)


def plan_of(store: str, index: str, encoder: EncoderConfig, detector: DetectorConfig, k: int) -> Plan:
    """Raises UsageError if nothing is published under that name, or its vectors are not looks of this encoder. If no encoder is
    named, the one recorded in the index is used."""
    uri = index_uri(store, index)
    if published(uri).current is None:
        raise UsageError(f"{uri}: no index is published there; run 'w2w embed --of=looks', then 'w2w index --of=looks'")
    manifest = read_manifest(uri)
    encoder = encoder_of(encoder, manifest)
    version = model_version(encoder)
    versions = delta.read(store, schema.LOOKS, [schema.STAGE_VERSION]).column(0).unique().to_pylist()
    for detected in (None, *versions):
        if look_version(version, detected) == manifest.model_version:
            detector = _as_cut(store, detected, detector)
            return Plan(store, index, manifest.version, encoder, version, detector, detected, k)
    raise UsageError(
        f"index {index!r} has no looks of {encoder.name}: run 'w2w embed --of=looks' and 'w2w index --of=looks' with this "
        "--encoder, or name the index of looks with --index"
    )


def _as_cut(store: str, detected: str | None, given: DetectorConfig) -> DetectorConfig:
    """The detector with the options by which the looks of the index were cropped, as recorded in the log of table `looks`,
    where ``given`` has defaults: otherwise the store's own photos would not be found. Raises UsageError for another
    detector."""
    opened = delta.open_table(store, schema.LOOKS) if detected is not None else None
    runs = (e["w2w"] for e in (delta.history(opened) if opened is not None else []) if e["w2w"])
    stored = next((r["config"].get("detector") for r in runs if r.get("stage_version") == detected), None)
    if not isinstance(stored, dict) or stored.get("name") is None:
        return given
    if stored["name"] != given.name:
        raise UsageError(f"the looks of the index were cut by detector {stored['name']!r}: name it with --detector.name")
    usual = DetectorConfig(given.name)
    cut_by = {n: stored[n] for n in _CUTTING if n in stored and getattr(given, n) == getattr(usual, n)}
    config = asdict(given) | cut_by
    return configuration.build(DetectorConfig, config, "w2w style")


class FindLooks:
    """Loads the models and opens the index once; adds each photo's person box, null if nobody was found, and the looks most
    similar to the person, or to the whole photo. A look's post is in product_id."""

    def __init__(self, plan: Plan):
        self._encoder = load_encoder(plan.encoder)
        check_version(f"encoder.name={plan.encoder.name}", plan.model_version, self._encoder.model_version)
        self._detector = Detector(plan.detector) if plan.detected is not None else None
        self._index = open_index(index_uri(plan.store, plan.index), version=plan.index_version)
        self._k = plan.k

    def __call__(self, rows: pa.Table) -> pa.Table:
        photos = photos_of(rows)
        persons = self._persons(photos, rows.column(schema.WIDTH).to_pylist())
        seen = [
            p if b is None else cut(p, b, p.shape[1] / w) for p, b, w in zip(photos, persons, rows[schema.WIDTH].to_pylist())
        ]
        vectors_ND = self._encoder.encode(np.stack([self._encoder.prepare(np.ascontiguousarray(one)) for one in seen]))
        good = finite_rows(vectors_ND)
        bad = Reject(RejectCode.NOT_FINITE, f"{self._encoder.name} gave NaN or infinity")
        hits: list[list[dict]] = [[] for _ in photos]
        places = np.flatnonzero(good).tolist()
        for hit in self._index.search(vectors_ND[good], self._k, one_per_product=True).to_pylist():
            hits[places[hit.pop(QUERY)]].append(hit)
        rows = rows.drop_columns([PIXELS, PIXEL_WIDTH, PIXEL_HEIGHT])
        for field, values in zip(STYLE_GIVES, (persons, hits)):
            rows = rows.append_column(field.name, pa.array(values, field.type))
        return with_rejects(rows, [None if ok else bad for ok in good])

    def _persons(self, photos: Sequence[np.ndarray], widths: Sequence[int]) -> list[list[float] | None]:
        """In pixels of the original photos, as in `detect`."""
        if self._detector is None:
            return [None] * len(photos)
        boxes: list[list[float] | None] = []
        for found, photo, width in zip(self._detector(photos), photos, widths):
            box = None
            if not isinstance(found, Reject):
                box = person_box(found.boxes_N4 * (width / photo.shape[1]), found.categories).box
            boxes.append(None if box is None else list(box))
        return boxes
