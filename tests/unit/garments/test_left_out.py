"""Another detector over some photos: the garments that are embedded are its own, and both jobs say what is left out."""

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.engine.lines import _Detector as Detector
from tests.unit.gallery.stores import append
from tests.unit.garments.test_stage import figure
from tests.unit.nights.nights import without_ray
from tests.unit.table.test_sink import lineage
from w2w import ids, schema
from w2w.garments import job_detect as detect
from w2w.garments import job_segment as segment
from w2w.garments import stage
from w2w.garments.detector import DetectorConfig
from w2w.garments.stage import to_jpeg
from w2w.mining.outfits import job as compose
from w2w.mining.pairs import job as mine
from w2w.models import earlier
from w2w.models import job as embed
from w2w.stage import Pool
from w2w.table import delta
from w2w.table.parts import Output
from w2w.table.sink import append_rows

NUM = 6


class _Some(Detector):
    """Finds nothing in a photo that is black."""

    def __call__(self, images):
        nothing = detect_nothing()
        return [found if image.max() > 20 else nothing for image, found in zip(images, super().__call__(images))]


def detect_nothing():
    return stage.Found(np.empty((0, 4), np.float32), np.empty(0, np.float32), [], [])


def photo(number: int) -> bytes:
    return to_jpeg(np.roll(figure(), number, axis=1) if number else np.zeros((400, 300, 3), np.uint8))


@pytest.fixture
def store(tmp_path, monkeypatch) -> str:
    without_ray(monkeypatch)
    monkeypatch.setattr(stage, "Detector", _Some)
    monkeypatch.setattr(detect, "try_detector", lambda config: None)
    add(str(tmp_path), range(NUM))
    return str(tmp_path)


def add(store: str, numbers) -> None:
    told = {"width": 300, "height": 400, "format": "jpeg", "phash": 0, "source_uri": "u", "fetched_at": 0}
    rows = [told | {"image_id": ids.image_id(photo(n)), "bytes": photo(n)} for n in numbers]
    append_rows(store, Output(schema.IMAGES), pa.Table.from_pylist(rows, schema=schema.IMAGES.schema), lineage(job="ingest"))


def detected(store: str, threshold: float, **more) -> detect.Result:
    config = DetectorConfig(threshold=threshold)
    return detect.main(detect.Config(store=store, detector=config, pool=Pool(workers=1, batch_rows=8), **more))


def to_embed(store: str, **more) -> embed.Result:
    return embed.main(embed.Config(store=store, of="garments", dry_run=True, **more))


def test_garments_of_an_earlier_detector_alone_are_counted(store, monkeypatch):
    first = detected(store, 0.5)
    assert (first.left_out, to_embed(store).left_out, to_embed(store).pending) == (None, None, 2 * NUM - 2)

    assert detected(store, 0.4, limit=2, dry_run=True).left_out is None
    some = detected(store, 0.4, limit=2)
    seen = delta.read(store, schema.LOOKS, [schema.NUM_GARMENTS], stage_version=some.stage_version).column(0).to_pylist()
    left = NUM - 1 - sum(num > 0 for num in seen)  # in the black photo nothing was found
    said = f"photos with garments of an earlier detector alone: {left}; the newest ({some.stage_version}) has not looked at "
    said += "them: run 'w2w detect' with its options, without --limit and --of=posts"
    assert some.left_out == said
    told = to_embed(store)
    assert (told.left_out, told.pending) == (said, sum(seen))
    chosen = to_embed(store, version=first.stage_version)
    assert (chosen.left_out, chosen.pending) == (None, 2 * NUM - 2)

    monkeypatch.setattr(earlier, "_photos", lambda *_: pytest.fail("read, though the watermark tells"))
    whole = detected(store, 0.4)
    assert (whole.left_out, to_embed(store).left_out, to_embed(store).pending) == (None, None, 2 * NUM - 2)
    add(store, [NUM])
    assert detected(store, 0.4).left_out is None


def test_a_photo_that_the_newest_rejects_is_not_left_out(store, monkeypatch):
    detected(store, 0.5)
    some = detected(store, 0.4, limit=3)
    before = to_embed(store).left_out
    here = delta.read(store, schema.LOOKS, [schema.IMAGE_ID], stage_version=some.stage_version).column(0).to_pylist()
    key = next(ids.image_id(photo(n)) for n in range(1, NUM) if ids.image_id(photo(n)) not in here)
    told = {"key": key, "stage": "detect", "stage_version": some.stage_version, "code": "model_failed", "rejected_at": 0}
    row = {name: told.get(name, "") for name in schema.REJECTS.schema.names}
    append_rows(store, Output(schema.REJECTS), pa.Table.from_pylist([row], schema=schema.REJECTS.schema), lineage(job="x"))
    num = int(before.split("alone: ")[1].split(";")[0])
    assert f"alone: {num - 1};" in to_embed(store).left_out


def test_mine_counts_the_photos_of_posts(store):
    first, some = detected(store, 0.5), detected(store, 0.4, limit=2)
    counted = delta.read(store, schema.LOOKS, [schema.IMAGE_ID, schema.NUM_GARMENTS, schema.STAGE_VERSION]).to_pylist()
    here = [row["image_id"] for row in counted if row["stage_version"] == some.stage_version]
    left, gone, *_ = [row["image_id"] for row in counted if row["num_garments"] and row["image_id"] not in here]
    posts = {left: True, gone: False, here[0]: True}
    append(store, schema.POSTS, [{"post_id": image, "image_id": image, "active": on} for image, on in posts.items()])
    append(store, schema.SPLITS, [{"owner_id": left, "owner_kind": "post", "split": "train"}])
    append(store, schema.REPRESENTATIVES, [{"product_id": "p", "image_id": "i"}])
    told = mine.main(mine.Config(store=store, dry_run=True))
    assert told.left_out == (
        f"photos of posts with garments of an earlier detector alone: 1; the newest ({some.stage_version}) has not looked at "
        "them: run 'w2w detect' with its options, without --limit"
    )
    assert mine.main(mine.Config(store=store, detector=first.stage_version, dry_run=True)).left_out is None


def test_cut_outs_of_an_earlier_segmenter_alone_are_counted(store):
    blank = {"bytes": b"", "mask_rle": {"size": [1, 1], "counts": ""}, "person_box": [0, 0, 1, 1], "width": 1, "height": 1}
    images = [ids.image_id(photo(n)) for n in range(NUM)]

    def cut_out(version: str, some: list[str]) -> None:
        rows = [blank | {"image_id": image, "slots": [], "stage_version": version} for image in some]
        table = pa.Table.from_pylist(rows, schema=schema.CUTOUTS.schema)
        append_rows(store, Output(schema.CUTOUTS), table, lineage(version, run=version, job="segment"))

    for table in (schema.DUPLICATES, schema.SPLITS):
        append(store, table, [dict.fromkeys(table.key, "x")])
    ways = (
        lambda **of: embed.main(embed.Config(store=store, of="slots", dry_run=True, **({"version": of["by"]} if of else {}))),
        lambda **of: compose.main(compose.Config(store=store, dry_run=True, **({"cutouts": of["by"]} if of else {}))),
    )
    cut_out("first", images[:4])
    assert [way().left_out for way in ways] == [None, None]
    cut_out("second", images[3:])
    said = "photos with cut-outs of an earlier segmenter or detector alone: 3; the newest (second) has not looked at them: run "
    said += "'w2w detect', if it guides them, and 'w2w segment' with their options, without --limit and --of=posts"
    assert [way().left_out for way in ways] == [said, said]
    assert [way(by="first").left_out for way in ways] == [None, None]
    done = segment.main(segment.Config(store=store, guide="none", limit=1, pool=Pool(workers=1)))
    assert "has not looked at them" in done.left_out
