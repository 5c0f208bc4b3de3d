"""ingest -> embed -> index -> search on a real local Ray: what is computed, what is not, what is served meanwhile."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.cluster.shops import picture, write_feed, write_shop
from w2w import schema
from w2w.errors import JobFailed, UsageError
from w2w.index import job as index
from w2w.index.manifest import index_uri
from w2w.index.publish import current_version, read_manifest
from w2w.index.search import open_index
from w2w.index.spec import IndexConfig
from w2w.index.stage import SearchConfig
from w2w.ingest import job as ingest
from w2w.ingest.feed import FeedConfig
from w2w.models import job as embed
from w2w.models.config import EncoderConfig
from w2w.search import job_search as search
from w2w.table import delta
from w2w.table.current import current_products

NUM_PRODUCTS = 90


def run_all(store: str, feed, encoder: EncoderConfig = EncoderConfig(), **feed_options):
    source = FeedConfig(uri=str(feed), **feed_options)
    ingested = ingest.main(ingest.Config(store=store, feed=source, max_reject_rate=1))
    embedded = embed.main(embed.Config(store=store, encoder=encoder))
    return ingested, embedded, index.main(index.Config(store=store, encoder=encoder, max_reject_rate=1))


def owners(store: str) -> list[str]:
    return sorted(delta.read(store, schema.EMBEDDINGS, [schema.OWNER_ID]).column(0).to_pylist())


def shard_names(store: str) -> dict[str, str]:
    return {s.category: s.name for s in read_manifest(index_uri(store, "default")).shards}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A shop that went through once; tests work on copies."""
    folder = tmp_path_factory.mktemp("shop")
    write_shop(folder / "shop", NUM_PRODUCTS)
    first = run_all(str(folder / "store"), folder / "shop" / "products.csv")
    return folder, first


@pytest.fixture
def shop(finished, tmp_path):
    """A copy of the finished shop, with its file times, at its own path."""
    shutil.copytree(finished[0] / "store", tmp_path / "store")
    return finished[0], str(tmp_path / "store")


def test_everything_is_computed_once(finished):
    _, (ingested, embedded, indexed) = finished
    assert ingested.counts.stages == dict.fromkeys(("load", "permit", "inspect", "load more", "warn"), NUM_PRODUCTS)
    assert embedded.counts.stages == {"decode": NUM_PRODUCTS, "encode": NUM_PRODUCTS}
    assert (indexed.shards_built, indexed.recall) == (3, 1.0)


def test_a_second_run_computes_nothing(shop):
    folder, store = shop
    before = (owners(store), current_version(index_uri(store, "default")))
    ingested, embedded, indexed = run_all(store, folder / "shop" / "products.csv")
    assert (ingested.counts.stages, embedded.counts.stages) == ({}, {})
    assert (ingested.skipped, embedded.skipped) == (NUM_PRODUCTS, NUM_PRODUCTS)
    assert (indexed.shards_built, indexed.shards_reused) == (0, 3)
    assert before == (owners(store), current_version(index_uri(store, "default")))


def test_what_changed_is_computed_and_nothing_else(finished, shop, tmp_path):
    _, store = shop
    copied = tmp_path / "shop"
    shutil.copytree(finished[0] / "shop", copied)  # keeps the times, so the fingerprints stay
    feed = {"image_root": str(finished[0] / "shop")}
    changed = ["p00004", "p00007"]  # both bottoms
    originals = {n: (finished[0] / "shop" / "images" / f"{int(n[1:])}.jpg") for n in changed}
    kept = {n: (p.read_bytes(), p.stat()) for n, p in originals.items()}
    rng = np.random.default_rng(99)
    try:
        for path in originals.values():
            path.write_bytes(picture(rng))
        write_feed(copied, range(NUM_PRODUCTS - 3))  # p00087 top, p00088 bottom, p00089 shoes are gone
        shards = shard_names(store)
        ingested, embedded, indexed = run_all(store, copied / "products.csv", full=True, grace_nights=1, **feed)
    finally:
        import os

        for n, path in originals.items():
            path.write_bytes(kept[n][0])
            os.utime(path, ns=(kept[n][1].st_atime_ns, kept[n][1].st_mtime_ns))
    assert ingested.counts.stages["load"] == 2
    assert embedded.counts.stages == {"decode": 2, "encode": 2}
    products = current_products(store, [schema.PRODUCT_ID, schema.ACTIVE]).to_pylist()
    assert {p["product_id"] for p in products if not p["active"]} == {"p00087", "p00088", "p00089"}
    assert len(products) == NUM_PRODUCTS
    assert indexed.shards_built == 3
    assert shards.keys() == shard_names(store).keys()


def test_only_touched_shards_are_rebuilt(finished, shop, tmp_path):
    _, store = shop
    with open(finished[0] / "shop" / "products.csv") as f:
        lines = f.read().splitlines()
    extra = tmp_path / "extra"
    (extra / "images").mkdir(parents=True)
    (extra / "images" / "new.jpg").write_bytes(picture(np.random.default_rng(5)))
    (extra / "products.csv").write_text(f"{lines[0]}\nnew,a new one,shoes,images/new.jpg\n")
    before = shard_names(store)
    _, embedded, indexed = run_all(store, extra / "products.csv")
    after = shard_names(store)
    assert embedded.counts.stages == {"decode": 1, "encode": 1}
    assert (indexed.shards_built, indexed.shards_reused) == (1, 2)
    assert {c for c in before if before[c] != after[c]} == {"shoes"}


def test_a_damaged_shard_is_built_again_though_nothing_has_changed(shop):
    _, store = shop
    uri = index_uri(store, "default")
    before = read_manifest(uri)
    file = Path(uri, "shards", before.shards[0].name, "rows.arrow")
    file.write_bytes(file.read_bytes()[:-1])
    healed = index.main(index.Config(store=store))
    assert (healed.shards_built, healed.shards_reused) == (1, len(before.shards) - 1)
    assert open_index(uri).manifest.shards == before.shards
    again = index.main(index.Config(store=store))
    assert (again.published, again.unchanged) == (healed.published, True)


def test_a_night_does_not_bring_back_what_was_rolled_back_from(shop, tmp_path):
    folder, store = shop
    lines = (folder / "shop" / "products.csv").read_text().splitlines()
    (tmp_path / "images").symlink_to(folder / "shop" / "images")
    (tmp_path / "fewer.csv").write_text("\n".join([lines[0], "one,another category,shoes,images/1.jpg"]) + "\n")
    _, _, bad = run_all(store, tmp_path / "fewer.csv")
    back = index.main(index.Config(store=store, rollback=True)).published
    held = index.main(index.Config(store=store))
    assert held.published == back == current_version(index_uri(store, "default"))
    assert held.held_back == bad.published
    other = EncoderConfig(store_dtype="float16")
    embed.main(embed.Config(store=store, encoder=other))
    index.main(index.Config(store=store, encoder=other))
    index.main(index.Config(store=store, rollback=True))
    (tmp_path / "more.csv").write_text("\n".join([lines[0], "two,one more,shoes,images/2.jpg"]) + "\n")
    ingest.main(ingest.Config(store=store, feed=FeedConfig(uri=str(tmp_path / "more.csv"))))
    with pytest.raises(JobFailed, match="was rolled back from and is of this model"):
        index.main(index.Config(store=store, encoder=other))
    index.main(index.Config(store=store, release=bad.published))
    assert bad.published in index.main(index.Config(store=store, rollback=True, dry_run=True)).index_versions


def test_another_model_is_computed_whole_while_the_old_index_serves(shop):
    folder, store = shop
    other = EncoderConfig(store_dtype="float16")
    old = current_version(index_uri(store, "default"))
    embedded = embed.main(embed.Config(store=store, encoder=other))
    assert embedded.counts.stages == {"decode": NUM_PRODUCTS, "encode": NUM_PRODUCTS}
    queries = FeedConfig(uri=str(folder / "shop" / "products.csv"))
    with pytest.raises(UsageError, match="their vectors cannot be compared"):
        search.main(search.Config(store=store, feed=queries, encoder=other))
    poor = IndexConfig(factory="PCA2,SQ4", target_recall=1.0, exact_below_rows=0)
    with pytest.raises(JobFailed, match="is not published: recall@10 is"):
        index.main(index.Config(store=store, encoder=other, index=poor))
    assert current_version(index_uri(store, "default")) == old
    index.main(index.Config(store=store, encoder=other))
    assert read_manifest(index_uri(store, "default")).model_version == embedded.model_version
    back = index.main(index.Config(store=store, rollback=True))
    assert back.published == old


def test_a_shifted_feed_meets_the_golden_queries_and_is_not_published(shop, tmp_path):
    folder, store = shop
    old = current_version(index_uri(store, "default"))
    shutil.copytree(folder / "shop", tmp_path / "shop")
    feed = tmp_path / "shop" / "products.csv"
    golden = tmp_path / "golden.csv"
    rows = [f"shop/images/{n}.jpg,p{n:05d},1," for n in range(30)]
    golden.write_text("\n".join(["photo,expected,k,note", *rows, "shop/images/40.jpg,p00040,1,the best seller"]))
    lines = feed.read_text().splitlines()
    shifted = [f"{line.rpartition('/')[0]}/{(n + 1) % 30}.jpg" for n, line in enumerate(lines[1:31])]
    feed.write_text("\n".join([lines[0], *shifted, *lines[31:]]) + "\n")
    ingest.main(ingest.Config(store=store, feed=FeedConfig(uri=str(feed))))
    config = index.Config(store=store, index=IndexConfig(golden=str(golden)))
    with pytest.raises(
        JobFailed, match=r"30 of \d+ sampled products have given their picture .*; 30 of 31 golden answers"
    ) as failed:
        index.main(config)
    assert current_version(index_uri(store, "default")) == old
    (page,) = (Path(store) / "reports" / "index").glob("index-*/index.html")
    assert str(page) in str(failed.value)
    done = index.main(replace(config, accept=True))
    assert (len(done.accepted), done.shoppers_see["golden"]) == (2, 1 / 31)
    feed.write_text("\n".join(lines) + "\n")
    ingest.main(ingest.Config(store=store, feed=FeedConfig(uri=str(feed))))
    with pytest.raises(JobFailed, match="have given their picture"):  # back again is a shift, too
        index.main(config)
    assert index.main(index.Config(store=store, rollback=True)).published == old


def test_search_finds_every_product_by_its_own_picture(shop, tmp_path):
    folder, store = shop
    queries = FeedConfig(uri=str(folder / "shop" / "products.csv"))
    config = search.Config(store=store, feed=queries, search=SearchConfig(k=3), out=str(tmp_path / "out"), shown=5)
    summary = search.main(config)
    assert summary.counts.out == NUM_PRODUCTS
    lines = [json.loads(line) for line in (tmp_path / "out" / "neighbours.jsonl").read_text().splitlines()]
    assert [line["query_id"] for line in lines] == sorted(line["query_id"] for line in lines)
    assert all(line["neighbours"][0]["product_id"] == line["query_id"] for line in lines)
    assert all(len(line["neighbours"]) == 3 for line in lines)
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000
    again = search.main(config)
    assert (again.skipped, again.counts.read) == (NUM_PRODUCTS, 0)
    inside = search.main(search.Config(store=store, feed=queries, search=SearchConfig(k=2, category="shoes"), shown=0))
    rows = delta.read(store, schema.NEIGHBOURS, ["neighbours"], search_version=inside.search_version)
    assert {h["category"] for row in rows.column(0).to_pylist() for h in row} == {"shoes"}


def test_broken_images_are_rejects_with_codes(tmp_path):
    feed = write_shop(tmp_path / "shop", 20)
    images = tmp_path / "shop" / "images"
    (images / "1.jpg").write_bytes(b"")
    (images / "2.jpg").write_bytes(b"<html>gone</html>")
    (images / "3.jpg").write_bytes((images / "3.jpg").read_bytes()[:400])
    (images / "4.jpg").unlink()
    with open(feed, "a") as f:
        f.write(feed.read_text().splitlines()[-1] + "\n")
    store = str(tmp_path / "store")
    with pytest.raises(JobFailed, match=r"5 of 21 rows were rejected"):
        ingest.main(ingest.Config(store=store, feed=FeedConfig(uri=str(feed))))
    rejects = delta.read(store, schema.REJECTS, [schema.KEY, schema.REJECT_CODE, schema.SOURCE]).to_pylist()
    assert {(r["key"].split("@")[0], r["code"]) for r in rejects} == {
        ("p00001", "empty"),
        ("p00002", "not_an_image"),
        ("p00003", "truncated"),
        ("p00004", "not_found"),
        (f"{feed}:22", "duplicate_key"),
    }
    assert all("products.csv:" in r["source"] for r in rejects)
    # final rejects are not tried again, what may come back is
    (images / "4.jpg").write_bytes(picture(np.random.default_rng(4)))
    again = ingest.main(ingest.Config(store=store, feed=FeedConfig(uri=str(feed))))
    assert (again.counts.read, again.counts.out, again.skipped) == (1, 1, 20)
    products = current_products(store, [schema.PRODUCT_ID])
    assert products.num_rows == 17
    assert pa.compute.count_distinct(delta.read(store, schema.IMAGES, [schema.IMAGE_ID]).column(0)).as_py() == 17
