"""What the classifier takes for near-duplicates."""

import pyarrow as pa

from tests.unit.training.outfits.test_flow import write
from w2w import schema
from w2w.training.classifier.flow import clusters

IMAGES = ["a", "b", "c", "d"]


def test_clusters_come_from_the_table_else_from_equal_hashes(tmp_path):
    store, images = str(tmp_path), pa.array(IMAGES)
    rows = [{"image_id": i, "phash": h} for i, h in zip(IMAGES, (7, 7, 8, -7))]
    rows = [
        {f.name: b"" if f.name == "bytes" else 0 if f.type != pa.string() else "" for f in schema.IMAGES.schema} | r
        for r in rows
    ]
    write(store, schema.IMAGES, rows)
    said, found = clusters(store, images)
    assert "w2w deduplicate" in said
    assert found["a"] == found["b"]
    assert len(set(found.values())) == 3
    given = {"duplicate_of": None, "how": None, "distance": None, "cluster_size": 2}
    write(store, schema.DUPLICATES, [given | {"image_id": i, "cluster_id": c} for i, c in (("a", "a"), ("d", "a"), ("b", "b"))])
    said, found = clusters(store, images)
    assert (said, found) == ("by table `duplicates`", {"a": "a", "d": "a", "b": "b"})
