"""`w2w erase` on stores that jobs made: nothing is left of what went, nothing comes back, all else works on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cluster.crawls import config as crawl_config
from tests.cluster.crawls import crawled, write_profile
from tests.cluster.shops import write_feed, write_shop
from tests.cluster.streets import true_garments
from tests.cluster.test_kill import environment
from w2w import ids, schema
from w2w.engine.cluster import RayConfig
from w2w.erase import job as erase
from w2w.export import job as export
from w2w.gallery import job as gallery
from w2w.garments import job_show as show
from w2w.index import job as index
from w2w.ingest import job as ingest
from w2w.ingest.feed import FeedConfig
from w2w.mining.duplicates import job as deduplicate
from w2w.mining.pairs import job as mine
from w2w.mining.pairs.rules import PairRules
from w2w.mining.representatives import job as represent
from w2w.mining.splits import job as split
from w2w.models import job as embed
from w2w.recommend import job as recommend
from w2w.search import job_search as search
from w2w.similar import job as similar
from w2w.stage import Pool
from w2w.table import delta
from w2w.table.current import current_posts, current_products
from w2w.wardrobe import shop as wardrobe
from w2w.wardrobe import site

RAY = RayConfig(num_cpus=2)
ONE = Pool(workers=1, batch_rows=8)
ROOT = Path(__file__).parents[2]


def traces(store: Path, *texts: str, pictures: tuple[bytes, ...] = ()) -> set[str]:
    """Files that have one of these in their bytes or, decoded, in their values."""
    found = set()
    for path in store.rglob("*"):
        if path.is_file() and path.name != "plan.json":
            data = path.read_bytes()
            told = repr(pq.read_table(path, partitioning=None).to_pylist()) if path.suffix == ".parquet" else ""
            told += repr(pa.ipc.open_file(data).read_all().to_pylist()) if path.suffix == ".arrow" else ""
            if any(text in told or text.encode() in data for text in texts) or any(p in data for p in pictures):
                found.add(str(path.relative_to(store)))
    return found


def products(store: Path) -> set[str]:
    rows = current_products(str(store), [schema.PRODUCT_ID, schema.ACTIVE]).to_pylist()
    return {row[schema.PRODUCT_ID] for row in rows if row[schema.ACTIVE]}


def test_a_night_does_not_bring_it_back(tmp_path):
    shop, store = tmp_path / "shop", tmp_path / "store"
    feed, names = write_shop(shop, 12), {f"p{i:05d}" for i in range(12)}
    night = ingest.Config(store=str(store), feed=FeedConfig(uri=str(feed), full=True), pool=ONE, ray=RAY)
    ingest.main(night)
    embed.main(embed.Config(store=str(store), pool=ONE, ray=RAY))
    index.main(index.Config(store=str(store), ray=RAY))
    gone, picture = "p00003", (shop / "images" / "5.jpg").read_bytes()
    done = erase.main(erase.Config(store=str(store), product=[gone], image=[ids.image_id(picture)]))
    assert not done.found
    sought = (gone, ids.image_id(picture), ids.image_id((shop / "images" / "3.jpg").read_bytes()))
    assert not traces(store, *sought, pictures=(picture,))
    for _ in range(2):
        again = ingest.main(night)
        assert again.rows_of_erased_products == 1
        assert not traces(store, *sought, pictures=(picture,))
    assert again.counts.read == 0
    assert products(store) == names - {gone, "p00005"}
    assert embed.main(embed.Config(store=str(store), pool=ONE, ray=RAY)).counts.read == 0
    assert index.main(index.Config(store=str(store), ray=RAY)).unchanged
    erase.main(erase.Config(store=str(store), product=[gone], image=[ids.image_id(picture)], allow=True))
    write_feed(shop, range(12))
    assert ingest.main(night).counts.out == 2
    assert products(store) == names


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_store_with_everything(tmp_path):
    """Crawled, embedded, indexed, mined, recommended, shown, exported; a product, a post and a picture go, by a run that is
    killed and one that finishes; the site still has them."""
    folder, store = tmp_path / "shop", tmp_path / "store"
    wardrobe.write_shop(folder, 3, 24, 8, size_px=96)
    with site.serve(folder, tmp_path / "requests.jsonl") as server:
        profile = write_profile(tmp_path, server.url)
        crawled(crawl_config(store, profile))
        place = str(store)
        true_garments(place, folder)
        for of in ("images", "garments"):
            embed.main(embed.Config(store=place, of=of, pool=ONE, ray=RAY))
        deduplicate.main(deduplicate.Config(store=place, ray=RAY))
        split.main(split.Config(store=place, ray=RAY))
        represent.main(represent.Config(store=place, pool=ONE, ray=RAY))
        pairing = mine.Config(store=place, rules=PairRules(thumbnail_px=64), ray=RAY)
        mined = mine.main(pairing)
        index.main(index.Config(store=place, ray=RAY))
        search.main(search.Config(store=place, of="anchors", pool=ONE, ray=RAY))
        similar.main(similar.Config(store=place, ray=RAY))
        recommend.main(recommend.Config(store=place, pool=ONE, ray=RAY))
        show.main(show.Config(store=place, ray=RAY))
        gallery.main(gallery.Config(store=place, ray=RAY))
        export.main(export.Config(store=place, vectors=True))
        pairs = delta.read(place, schema.PAIRS, [schema.PRODUCT_ID, schema.POST_ID]).to_pylist()
        gone, post = pairs[0][schema.PRODUCT_ID], pairs[-1][schema.POST_ID]
        rows = current_products(place, [schema.PRODUCT_ID, schema.IMAGE_ID, schema.URL]).to_pylist()
        own = next(row for row in rows if row[schema.PRODUCT_ID] == gone)
        image = next(row[schema.IMAGE_ID] for row in rows if row[schema.PRODUCT_ID] != gone)
        posts = {p[schema.POST_ID]: p for p in current_posts(place).to_pylist()}
        sought = (own[schema.IMAGE_ID], own[schema.URL], posts[post][schema.IMAGE_ID], posts[post][schema.URL], image)
        before = len(rows)
        asked = [f"--product={gone}", f"--post={post}", f"--image={image}"]
        command = [sys.executable, "jobs/erase.py", f"--store={store}", *asked]
        killed = subprocess.Popen(command, cwd=ROOT, env=environment(), start_new_session=True)
        plan = store / "erased" / "keys.json"
        while killed.poll() is None and not plan.exists():
            time.sleep(0.02)
        time.sleep(0.4)
        os.killpg(killed.pid, signal.SIGKILL) if killed.poll() is None else None
        killed.wait()
        done = erase.main(erase.Config(store=place, product=[gone], post=[post], image=[image]))
        assert not done.found
        assert done.waiting
        assert mined.counts.out
        sent = export.main(export.Config(store=place, vectors=True))
        assert sent.deletions == 2
        assert not erase.main(erase.Config(store=place, product=[gone], post=[post], image=[image])).waiting
        assert not traces(store, *sought)
        crawled(crawl_config(store, profile))
        assert not traces(store, *sought)
    assert len(products(store)) == before - 2
    for job in (
        mine.main(pairing),
        index.main(index.Config(store=place, ray=RAY)),
    ):
        assert job.counts.read
    assert search.main(search.Config(store=place, of="anchors", pool=ONE, ray=RAY)).counts.rejected == 0
    assert not traces(store, *sought)
