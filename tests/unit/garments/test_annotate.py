"""Annotation files that change: each photo is in the table once, as its file describes it now."""

import json
from collections import Counter

import numpy as np
import pytest

from tests.unit.nights.nights import without_ray
from w2w import schema
from w2w.garments import job_annotate as annotate
from w2w.garments.formats import AnnotationsConfig
from w2w.garments.stage import to_jpeg
from w2w.stage import Pool
from w2w.table import delta


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Annotates photos of 80 x 60 pixels, a box each, by name; returns the summary."""
    without_ray(monkeypatch)
    config = annotate.Config(
        store=str(tmp_path / "store"),
        annotations=AnnotationsConfig(str(tmp_path / "train.json"), "fashionpedia"),
        pool=Pool(workers=1),
        max_reject_rate=1,
    )

    def run(boxes: dict[str, list[int]]):
        records = [{"image_id": i, "category_id": 1, "bbox": box} for i, box in enumerate(boxes.values())]
        images = [{"id": i, "file_name": name} for i, name in enumerate(boxes)]
        for name in boxes:
            (tmp_path / name).write_bytes(to_jpeg(np.full((60, 80, 3), 99, np.uint8)))
        file = {"images": images, "annotations": records, "categories": [{"id": 1, "name": "sweater"}]}
        (tmp_path / "train.json").write_text(json.dumps(file))
        return annotate.main(config)

    run.store = config.store  # type: ignore[attr-defined]
    return run


def stored(store: str) -> dict[str, list[float]]:
    rows = delta.read(store, schema.DETECTIONS, [schema.KEY, schema.OBJECTS]).to_pylist()
    assert max(Counter(r[schema.KEY] for r in rows).values()) == 1
    return {r[schema.KEY].partition("/")[2]: r[schema.OBJECTS][0][schema.BOX] for r in rows}


def test_an_edited_record_replaces_its_row_and_no_other_is_read_again(read):
    boxes = {f"{i}.jpg": [10, 10, 20 + i, 20] for i in range(5)}
    assert read(boxes).counts.out == 5
    assert read(boxes).counts.read == 0
    moved = read(boxes | {"1.jpg": [5, 5, 10, 10], "2.jpg": [10, 10, 0, 0], "new.jpg": [1, 1, 9, 9]})
    assert (moved.counts.read, moved.counts.out, moved.counts.rejects) == (3, 2, {"bad_box": 1})
    assert (moved.changed, moved.skipped) == (2, 3)
    now = stored(read.store)
    assert set(now) == {"0.jpg", "1.jpg", "3.jpg", "4.jpg", "new.jpg"}
    assert (now["1.jpg"], now["0.jpg"]) == ([5, 5, 15, 15], [10, 10, 30, 30])
    assert read(boxes | {"1.jpg": [5, 5, 10, 10], "2.jpg": [10, 10, 0, 0], "new.jpg": [1, 1, 9, 9]}).counts.read == 0
    assert read(boxes).counts.out == 2  # as they were
    assert stored(read.store)["1.jpg"] == [10, 10, 31, 30]


def test_a_record_that_was_rejected_before_takes_the_place_of_a_good_one(read):
    for box in ([10, 10, 0, 0], [10, 10, 20, 20], [10, 10, 0, 0]):
        read({"a.jpg": [1, 1, 9, 9], "b.jpg": box})
    assert set(stored(read.store)) == {"a.jpg"}
