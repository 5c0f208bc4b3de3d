"""A night on real Ray that crawls a site, finds the garments of its posts, and publishes an index."""

import re

import pytest

from tests.cluster.crawls import config, write_profile
from w2w import schema
from w2w.crawl.job import CrawlConfig
from w2w.engine.job import options_of
from w2w.garments.job_detect import DetectConfig
from w2w.nightly import job as nightly
from w2w.stage import Pool
from w2w.table.current import current_products
from w2w.wardrobe import site
from w2w.wardrobe.shop import write_shop


@pytest.mark.slow
def test_a_night_that_crawls(tmp_path):
    write_shop(tmp_path / "shop", 20261129, 24, 6, size_px=48)
    store = tmp_path / "store"
    with site.serve(tmp_path / "shop", tmp_path / "requests.jsonl") as server:
        visits = config(store, write_profile(tmp_path, server.url))
        crawl = CrawlConfig(**options_of(visits, CrawlConfig))
        settings = nightly.Config(store=str(store), crawl=crawl, detect=DetectConfig(of="posts"), pool=Pool(workers=2))
        result = nightly.main(settings)
        again = nightly.main(settings)
    assert result.ingest is None
    assert result.crawl.products_changed == current_products(str(store), [schema.PRODUCT_ID]).num_rows == 24
    assert result.detect.counts.out == result.detect.pending > 0
    assert result.index.published
    assert re.search(r": 24 new(, \d+ rejected)?; index published\.$", result.says)
    assert (again.detect.pending, again.index.unchanged, again.index.published) == (0, True, result.index.published)
    assert "nothing changed" in again.says
