"""Items of work: cut to a limit, and tapered towards the end."""

import pyarrow as pa
import pytest

from tests.cluster.streets import append
from w2w import schema, storage
from w2w.engine.source import Source, pending_rows
from w2w.errors import JobFailed
from w2w.garments.boxes import person_box
from w2w.garments.guides import guides_of
from w2w.table import delta
from w2w.table.parts import Output
from w2w.table.pending import ITEM_SCHEMA, Keys, read_item, rejected_keys, table_keys
from w2w.table.sink import Lineage, append_rows
from w2w.table.tolerance import Tolerance


def source(*sizes: int) -> Source:
    items = [pa.table([["f"], [i], [None], [n]], schema=ITEM_SCHEMA) for i, n in enumerate(sizes)]
    return Source("root", items, sum(sizes), pa.schema([("key", pa.string())]), "key")


def rows(made: Source) -> list[tuple[int, int]]:
    """(row group, row) of every row of every item, in order."""
    found = []
    for item in made.items:
        [row] = item.to_pylist()
        numbers = row["rows"] or range(row["num_rows"])
        assert len(numbers) == row["num_rows"]
        found += [(row["row_group"], n) for n in numbers]
    return found


def test_tapered_items_hold_the_same_rows_and_shrink():
    whole = source(1024, 1024, 1024, 1000)
    made = whole.tapered(num_workers=2, least_rows=64)
    sizes = [i.column("num_rows")[0].as_py() for i in made.items]
    assert rows(made) == rows(whole)
    assert made.num_rows == whole.num_rows
    left = whole.num_rows
    for size in sizes:
        assert size <= max(64, left // 4)
        left -= size
    assert sizes[0] > 4 * sizes[-1]


def test_small_items_stay_as_they_are():
    whole = source(10, 20, 30)
    assert whole.tapered(num_workers=8, least_rows=64).items == whole.items


def test_first_cuts_at_the_limit():
    made = source(10, 20, 30).first(15)
    assert made.num_rows == 15
    assert rows(made) == [(0, n) for n in range(10)] + [(1, n) for n in range(5)]


def test_rejects_of_earlier_runs_count_as_those_of_now(tmp_path):
    store, lineage = str(tmp_path), Lineage("embed", "run-1", "embed", "v1", {}, {}, "test")
    image = dict.fromkeys(schema.IMAGES.schema.names, 0) | {"bytes": b"x", "format": "jpeg", "source_uri": "u"}
    images = [image | {"image_id": f"i{n}"} for n in range(10)]
    append_rows(store, Output(schema.IMAGES), pa.Table.from_pylist(images, schema=schema.IMAGES.schema), lineage)
    reject = {"stage": "embed", "detail": "", "rejected_at": 0, "run_id": "run-1"}
    said = [("i1", "v1", "corrupt"), ("i2", "v1", "corrupt"), ("i2", "v1", "corrupt"), ("gone", "v1", "corrupt")]
    said += [("i3", "v1", "not_found"), ("i4", "another", "corrupt")]  # for the moment, or by another version
    rejects = [reject | {"key": key, "stage_version": version, "code": code} for key, version, code in said]
    append_rows(store, Output(schema.REJECTS), pa.Table.from_pylist(rejects, schema=schema.REJECTS.schema), lineage)

    def due(among: Keys | None = None) -> Source:
        done = [table_keys(store, schema.EMBEDDINGS, schema.OWNER_ID, model_version="v1"), rejected_keys(store, "embed", "v1")]
        return pending_rows(store, schema.IMAGES, [schema.IMAGE_ID], done, None, 100, among)

    everything = due()
    assert (everything.num_rows, everything.skipped, everything.rejected, everything.listed) == (8, 2, 2, 10)
    assert (everything.first(3).num_rows, everything.first(3).listed) == (3, 10)
    some = due(Keys([pa.chunked_array([["i1", "i5"]])], 2))
    assert (some.num_rows, some.rejected) == (1, 1)
    failed = due(Keys([pa.chunked_array([["i1", "i2"]])], 2))
    with pytest.raises(JobFailed, match=r"2 of 10 rows were rejected \(2 by earlier runs\): more than max_reject_rate=0.1"):
        failed.is_done(Tolerance(0.1, 2))
    assert failed.is_done(Tolerance(0.1, 3))
    assert not everything.is_done(Tolerance(0.0, 1))


def test_a_limit_takes_the_same_rows_however_they_lie(tmp_path):
    """Parts are called by chance, and hold what their workers came by."""
    ids = [f"image-{i:02d}" for i in range(20)]
    looks = [{"image_id": i, "num_garments": 0, "crop_source": "few_garments", "stage_version": "v"} for i in ids]
    taken = []
    for store, order in ((str(tmp_path / "a"), looks), (str(tmp_path / "b"), looks[::-1])):
        for part in (order[:3], order[3:11], order[11:]):
            append(store, schema.LOOKS, part)
        found = pending_rows(store, schema.LOOKS, ["image_id"], [], None, 4, limit=7)
        system, root = storage.filesystem(delta.uri(store, schema.LOOKS))
        read = [t for item in found.items for t in read_item(system, root, item.to_pylist()[0], ["image_id"], 64)]
        taken.append(sorted(i for t in read for i in t.column(0).to_pylist()))
        assert (found.num_rows, found.skipped) == (7, 0)
    assert taken[0] == taken[1]
    assert len(set(taken[0])) == 7


def test_unsure_finds_guide_nothing(tmp_path):
    """Of three garments two are sure: the person is around these; a person that was seen as such stays."""
    store = str(tmp_path)
    boxes = {"top": [100, 100, 300, 300], "bottom": [120, 300, 280, 500], "bag": [400, 0, 600, 900]}
    scores = {"top": 0.9, "bottom": 0.3, "bag": 0.2}
    garments = [
        {
            "garment_id": f"{photo}{c}",
            "image_id": photo,
            "category": c,
            "original_label": c,
            "score": scores[c],
            "box_xyxy": box,
        }
        | {"crop": b"", "crop_source": "box", "stage_version": "v"}
        for photo in "xyz"
        for c, box in boxes.items()
        if photo != "z" or c == "bag"
    ]
    append(store, schema.GARMENTS, garments, "v")
    whole = person_box(list(boxes.values()), list(boxes)).box
    person = {"x": (whole, "garments"), "y": ([90, 90, 310, 510], "person"), "z": (None, "few_garments")}
    looks = [
        {"image_id": i, "num_garments": 3, "person_box": box, "crop_source": source, "stage_version": "v"}
        for i, (box, source) in person.items()
    ]
    append(store, schema.LOOKS, looks, "v")
    sure = {r["image_id"]: r for r in guides_of(store, "v", 0.25).to_pylist()}
    assert {i: [g["category"] for g in r["found"]] for i, r in sure.items()} == {
        "x": ["top", "bottom"],
        "y": ["top", "bottom"],
        "z": [],
    }
    assert (sure["x"]["person_box"], sure["x"]["crop_source"]) == ([100, 100, 300, 500], "garments")
    assert (sure["y"]["person_box"], sure["y"]["crop_source"]) == ([90, 90, 310, 510], "person")
    assert (sure["z"]["person_box"], sure["z"]["crop_source"]) == (None, "few_garments")
    assert {r["image_id"]: r["person_box"] for r in guides_of(store, "v").to_pylist()}["x"] == list(whole)
