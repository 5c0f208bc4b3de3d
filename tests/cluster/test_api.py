"""``import w2w`` in a process that is connected to a Ray of its own: jobs use that one, and models do without."""

import numpy as np
import ray

import w2w
from tests.cluster.shops import write_shop

NUM_PRODUCTS = 12


def test_two_jobs_run_on_the_ray_that_is_there(tmp_path, capfd):
    write_shop(tmp_path / "shop", NUM_PRODUCTS)
    before = ray.get_runtime_context().get_job_id()
    feed, store = {"uri": tmp_path / "shop" / "products.csv"}, tmp_path / "store"
    ingested = w2w.ingest(store=store, feed=feed, max_reject_rate=1, pool={"workers": 1})
    embedded = w2w.embed(store=store, pool={"workers": 1, "batch_rows": 8})
    assert (embedded.counts.out, embedded.pending) == (ingested.counts.out, ingested.counts.out)
    assert capfd.readouterr() == ("", "")
    assert (ray.is_initialized(), ray.get_runtime_context().get_job_id()) == (True, before)

    table = w2w.open(str(store)).table("embeddings")
    read = table.ray(["owner_id", "model_version", "vector"])
    rows = {row["owner_id"]: row["vector"] for row in read.take_all()}
    assert set(rows) == set(table.arrow(["owner_id"])["owner_id"].to_pylist())
    assert read.count() == embedded.counts.out
    images = w2w.open(str(store)).table("images").arrow(["image_id", "bytes"]).slice(0, 3)
    encoder = w2w.load_encoder()
    vectors = encoder(images["bytes"].to_pylist())
    np.testing.assert_allclose(vectors, np.array([rows[i] for i in images["image_id"].to_pylist()]), atol=2e-3)
    assert ray.get_runtime_context().get_job_id() == before
