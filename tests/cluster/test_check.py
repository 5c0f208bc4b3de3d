"""`w2w check` from the feed to the page: pictures are measured on workers, and once."""

from pathlib import Path

import numpy as np
import simplejpeg

import w2w
from tests.cluster.shops import write_shop
from w2w import schema
from w2w.table import delta


def test_a_morning_after_a_night(tmp_path):
    feed, store = write_shop(tmp_path / "shop", 12), str(tmp_path / "store")
    flat = simplejpeg.encode_jpeg(np.full((400, 400, 3), 200, np.uint8))
    (tmp_path / "shop" / "images" / "4.jpg").write_bytes(flat)
    w2w.ingest(store=store, feed={"uri": str(feed)})
    assert w2w.check(store=store, dry_run=True).to_measure == 12
    some = w2w.check(store=store, least_px=64, limit=5)
    assert "blurred: 7 pictures that are not measured yet: --limit" in some.left_out
    first = w2w.check(store=store, least_px=64)
    assert (some.counts.out, first.counts.out, first.findings) == (5, 7, {"placeholder": 1})
    assert some.new + first.new == 1
    again = w2w.check(store=store, least_px=200)
    assert (again.to_measure, again.skipped, again.counts.read) == (0, 12, 0)
    assert (again.findings, again.new) == ({"placeholder": 1, "tiny": 11}, 11)
    rows = delta.read(store, schema.CHECKS, [schema.KIND, schema.PRODUCT_ID]).to_pylist()
    assert {"kind": "placeholder", "product_id": "p00004"} in rows
    assert "product 4" in Path(again.report).read_text()
