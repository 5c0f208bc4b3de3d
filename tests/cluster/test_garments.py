"""detect and segment on a real local Ray: every photo once, what was done is skipped, guides stand beside the images."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from bs4 import BeautifulSoup

from tests.unit.garments.models import save_detector
from tests.unit.garments.test_stage import figure
from w2w import ids, schema
from w2w.engine.cluster import RayConfig
from w2w.engine.run import run_stages
from w2w.engine.source import pending_rows
from w2w.errors import UsageError
from w2w.garments import job_annotate as annotate
from w2w.garments import job_detect as detect
from w2w.garments import job_segment as segment
from w2w.garments import job_show as show
from w2w.garments.detector import Detector, DetectorConfig, Found
from w2w.garments.flow import COLUMNS, decode_stage, detect_stages
from w2w.garments.formats import AnnotationsConfig
from w2w.garments.guides import guides_of
from w2w.garments.stage import ITEMS, Detect, to_jpeg
from w2w.images.decode import DecodeLimits
from w2w.models.config import EncoderConfig
from w2w.models.encoder import model_version
from w2w.stage import Pool
from w2w.table import delta
from w2w.table.delta import newest_version
from w2w.table.parts import Output
from w2w.table.sink import Lineage, append_rows
from w2w.table.tolerance import Tolerance
from w2w.training.classifier import job as classify

NUM_PHOTOS = 10
RAY = RayConfig(num_cpus=2)


def fill(store: str) -> list[str]:
    """Photos of two sizes and one that is no image; their ids."""
    blobs = [to_jpeg(np.roll(figure(400, 300 - 40 * (i % 2)), i, axis=1)) for i in range(NUM_PHOTOS)]
    blobs[3] = b"<!doctype html>"
    n = len(blobs)
    columns = [[ids.image_id(b) for b in blobs], blobs, pa.array([300 - 40 * (i % 2) for i in range(n)], pa.int32())]
    columns += [pa.array([400] * n, pa.int32()), ["jpeg"] * n, pa.array([0] * n, pa.int64()), ["x"] * n]
    rows = pa.table([*columns, pa.array([0] * n, schema.TIME)], schema=schema.IMAGES.schema)
    for part in (rows.slice(0, 4), rows.slice(4)):  # two parts: a guide stands beside each
        lineage = Lineage("fill", "fill", "fill", "1", {}, {}, "x")
        append_rows(store, Output(schema.IMAGES, unique=schema.IMAGE_ID), part, lineage)
    return columns[0]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("garments")
    save_detector(folder / "model", "rt_detr")
    return folder, fill(str(folder / "store"))


def test_photos_to_garments_to_cutouts(place):
    folder, image_ids = place
    store = str(folder / "store")
    config = detect.Config(
        store=store, detector=DetectorConfig(str(folder / "model"), threshold=0.0, max_boxes=4),
        pool=Pool(workers=1, batch_rows=3), max_reject_rate=1, item_rows=4, ray=RAY,
    )  # fmt: skip
    first = detect.main(detect.Config(**{**config.__dict__, "limit": 4}))
    assert first.counts.read == 4
    summary = detect.main(config)
    assert summary.counts.read == NUM_PHOTOS - 4
    version = summary.stage_version
    looks = delta.read(store, schema.LOOKS, [schema.IMAGE_ID, schema.NUM_GARMENTS], stage_version=version).to_pylist()
    rejects = delta.read(store, schema.REJECTS, [schema.KEY, schema.REJECT_CODE], stage="detect").to_pylist()
    assert [(r[schema.KEY], r[schema.REJECT_CODE]) for r in rejects] == [(image_ids[3], "not_an_image")]
    assert sorted(look[schema.IMAGE_ID] for look in looks) == sorted(set(image_ids) - {image_ids[3]})
    garments = delta.read(store, schema.GARMENTS, [schema.GARMENT_ID, schema.IMAGE_ID, schema.CROP, schema.STAGE_VERSION])
    assert garments.num_rows == sum(look[schema.NUM_GARMENTS] for look in looks) > 0
    assert len(set(garments.column(0).to_pylist())) == garments.num_rows
    again = detect.main(config)
    assert (again.counts.read, again.skipped) == (0, NUM_PHOTOS)

    assert newest_version(store, schema.LOOKS) == version
    guides = guides_of(store, version)
    assert sorted(guides.column(schema.IMAGE_ID).to_pylist()) == sorted(look[schema.IMAGE_ID] for look in looks)
    per_photo = {g[schema.IMAGE_ID]: len(g["found"]) for g in guides.to_pylist()}
    assert per_photo == {look[schema.IMAGE_ID]: look[schema.NUM_GARMENTS] for look in looks}

    for guide in ("none", "auto"):
        cut = segment.main(
            segment.Config(
                store=store, guide=guide, pool=Pool(workers=1, batch_rows=3), max_reject_rate=1, item_rows=3, ray=RAY
            )
        )
        photos = NUM_PHOTOS - (guide == "auto")  # a guide knows nothing of the photo that was rejected
        assert cut.counts.read == photos
        assert cut.counts.out + cut.counts.rejected == photos
        cutouts = delta.read(
            store, schema.CUTOUTS, [schema.IMAGE_ID, schema.MASK_RLE, schema.SLOTS], stage_version=cut.stage_version
        )
        assert cutouts.num_rows == cut.counts.out
        assert len(set(cutouts.column(0).to_pylist())) == cutouts.num_rows
    assert not (folder / "store" / "_work" / cut.run_id).exists()
    page = show.main(show.Config(store=store, photos=5)).report
    soup = BeautifulSoup(Path(page).read_text(encoding="utf-8"), "html.parser")
    assert len(soup.select(".seen")) == 5
    assert len(soup.select(".seen > .photo img")) == 5
    assert "not_an_image" in soup.get_text()

    history = delta.history(delta.open_table(store, schema.CUTOUTS), 1)[0]["w2w"]
    assert set(history["inputs"]) >= {"images"}
    assert json.dumps(history["config"])


class Fragile(Detect):
    """A detector whose model has room for two photos, breaks on a white one, and whose process dies once."""

    labels = ("top",)

    def __init__(self, config: DetectorConfig, marker: str):
        self._detector, self._marker = Detector(config, self, batch_images=8), Path(marker)

    def __call__(self, rows, floor: float | None = None):
        if floor is None:
            return super().__call__(rows)
        if not self._marker.exists():
            self._marker.touch()
            os._exit(1)
        if len(rows) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")
        if any(photo[:4].min() > 250 for photo in rows):
            raise IndexError("no such anchor")
        return [Found(np.array([[10, 10, 90, 90]], np.float32), np.array([0.9], np.float32), ("top",)) for _ in rows]


def test_a_dead_worker_a_full_device_and_a_poison_photo_cost_no_other_row(tmp_path):
    store, num = str(tmp_path / "store"), 9
    photos = [np.full((120, 100, 3), 255 if i == 4 else 20 * i, np.uint8) for i in range(num)]
    columns = [[f"{i:064d}" for i in range(num)], [to_jpeg(p) for p in photos], pa.array([100] * num, pa.int32())]
    columns += [pa.array([120] * num, pa.int32()), ["jpeg"] * num, pa.array([0] * num, pa.int64()), ["x"] * num]
    rows = pa.table([*columns, pa.array([0] * num, schema.TIME)], schema=schema.IMAGES.schema)
    append_rows(store, Output(schema.IMAGES), rows, Lineage("fill", "fill", "fill", "1", {}, {}, "x"))
    cut, one = {"stage_version": "v1", "crop_px": 64, "padding": 0.0}, Pool(workers=1, num_cpus=0.5, batch_rows=8)
    model, crop = detect_stages(DetectorConfig(), cut, Pool(workers=1, num_cpus=0.5), gpu_pool=one)
    fragile = {"config": DetectorConfig("fragile"), "marker": str(tmp_path / "died")}
    stages = [decode_stage(DecodeLimits(), 1600), replace(model, run=Fragile, args=fragile), crop]
    counts, _ = run_stages(
        store,
        pending_rows(store, schema.IMAGES, COLUMNS, [], schema.SOURCE_URI, 16),
        stages,
        [Output(schema.GARMENTS, unique=schema.GARMENT_ID, nested=ITEMS), Output(schema.LOOKS)],
        Lineage("detect", "r", "detect", "v1", {}, {}, "x"),
        pool=Pool(workers=1, num_cpus=0.5, batch_rows=9),
        tolerance=Tolerance(1),
    )
    assert (tmp_path / "died").exists()
    assert (counts.read, counts.out, counts.rejects) == (num, num - 1, {"model_failed": 1})
    garments = delta.read(store, schema.GARMENTS, [schema.IMAGE_ID]).column(0).to_pylist()
    assert sorted(garments) == [f"{i:064d}" for i in range(num) if i != 4]
    (reject,) = delta.read(store, schema.REJECTS, [schema.KEY, schema.REJECT_DETAIL]).to_pylist()
    assert reject == {schema.KEY: f"{4:064d}", schema.REJECT_DETAIL: "IndexError: no such anchor"}


def test_annotations_become_training_rows(tmp_path):
    photos, records = [], []
    for i in range(6):
        (tmp_path / f"{i}.jpg").write_bytes(to_jpeg(np.roll(figure(), i, axis=0)) if i != 2 else b"no image")
        photos.append({"id": i, "file_name": f"{i}.jpg", "width": 300, "height": 400})
        records.append({"id": i, "image_id": i, "category_id": 4, "bbox": [105, 110, 90, 120 if i != 4 else 0]})
    file = {"images": photos, "annotations": records, "categories": [{"id": 4, "name": "sweater"}, {"id": 5, "name": "shoe"}]}
    (tmp_path / "train.json").write_text(json.dumps(file))
    read = AnnotationsConfig(str(tmp_path / "train.json"), "fashionpedia", split="train")
    config = annotate.Config(store=str(tmp_path / "store"), annotations=read, pool=Pool(workers=1), max_reject_rate=1, ray=RAY)
    summary = annotate.main(config)
    assert summary.counts.rejects == {"not_an_image": 1, "bad_box": 1}
    rows = delta.read(config.store, schema.DETECTIONS, schema.DETECTIONS.schema.names).to_pylist()
    assert sorted(r[schema.KEY] for r in rows) == [f"fashionpedia/{i}.jpg" for i in (0, 1, 3, 5)]
    (row, *_) = rows
    assert (row[schema.WIDTH], row[schema.HEIGHT], row[schema.SPLIT], row[schema.LABELLED]) == (
        300,
        400,
        "train",
        ["shoes", "top"],
    )
    (thing,) = row[schema.OBJECTS]
    assert (thing[schema.CATEGORY], thing[schema.ORIGINAL_LABEL], thing[schema.IGNORE]) == ("top", "sweater", False)
    assert thing[schema.BOX] == [105, 110, 195, 230]
    assert annotate.main(config).counts.read == 0


def test_a_classifier_is_trained_and_used(tmp_path):
    store, num = str(tmp_path), 120
    version = model_version(EncoderConfig())
    rng = np.random.default_rng(0)
    names = ["Topwear", "Sandal", "Watch"]
    vectors_ND = np.eye(8, dtype=np.float32)[np.arange(num) % 3] + 0.1 * rng.normal(size=(num, 8)).astype(np.float32)
    lineage = Lineage("fill", "fill", "fill", "1", {}, {}, "x")
    product = {f.name: "x" for f in schema.PRODUCTS.schema if f.type == pa.string()} | {
        "price": 1.0,
        "attributes": [],
        "active": True,
        "fetched_at": 0,
    }
    products = [product | {"product_id": f"p{i}", "image_id": f"i{i}", "category": names[i % 3]} for i in range(num)]
    append_rows(store, Output(schema.PRODUCTS), pa.Table.from_pylist(products, schema=schema.PRODUCTS.schema), lineage)
    embedded = [
        {"owner_id": f"i{i}", "owner_kind": "image", "model_version": v, "vector": vectors_ND[i].tolist()}
        for i in range(num)
        for v in (version, "another")
    ]
    append_rows(store, Output(schema.EMBEDDINGS), pa.Table.from_pylist(embedded, schema=schema.EMBEDDINGS.schema), lineage)
    config = classify.Config(
        store=store, train=True, classes={"Topwear": "top", "Sandal": "shoes"}, threshold=0.5, pool=Pool(workers=1), ray=RAY
    )
    with pytest.raises(UsageError, match="train one with 'w2w classify --train'"):
        classify.main(classify.Config(store=store, ray=RAY))
    trained = classify.main(config)
    assert trained.accuracy.value > 0.95
    assert "shoes" in Path(trained.report).read_text(encoding="utf-8")
    predicted = classify.main(classify.Config(store=store, threshold=0.5, pool=Pool(workers=1), ray=RAY))
    assert (predicted.counts.out, predicted.counts.rejected) == (num, 0)
    rows = delta.read(store, schema.CLASSIFICATIONS, [schema.OWNER_ID, schema.CATEGORY, schema.ACCEPTED]).to_pylist()
    right = [r[schema.CATEGORY] == ("top", "shoes", "etc")[int(r[schema.OWNER_ID][1:]) % 3] for r in rows]
    assert np.mean(right) > 0.97
    assert not any(r[schema.ACCEPTED] for r in rows if r[schema.CATEGORY] == "etc")
    assert classify.main(classify.Config(store=store, threshold=0.5, ray=RAY)).counts.read == 0
    other = classify.Config(store=store, encoder=EncoderConfig(store_dtype="float16"), ray=RAY)
    with pytest.raises(UsageError, match="was trained on embeddings"):
        classify.main(other)


def test_mistakes(place, tmp_path):
    folder, _ = place
    store = str(folder / "store")
    with pytest.raises(UsageError, match="has no rows of that version"):
        segment.main(segment.Config(store=store, guide="0123456789abcdef"))
    with pytest.raises(UsageError, match="run 'w2w ingest' first"):
        detect.main(detect.Config(store=str(tmp_path), detector=DetectorConfig(str(folder / "model"))))
    with pytest.raises(UsageError, match=r"detector\.name=nowhere: unknown\. Allowed: w2w-lite0"):
        detect.main(detect.Config(store=store, detector=DetectorConfig("nowhere")))
