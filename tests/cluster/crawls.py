"""Profiles of the wardrobe site and its hostile twin, and short ways to crawl them."""

import hashlib
import json
from pathlib import Path

from w2w import schema
from w2w.crawl import job as crawl
from w2w.crawl.frontier import RecrawlConfig
from w2w.crawl.stage import VisitConfig
from w2w.stage import Pool
from w2w.table import delta
from w2w.table.current import current_posts, current_products
from w2w.web.fetch import FetchConfig
from w2w.web.politeness import PolitenessConfig
from w2w.web.urls import Limits

PROFILE = """
name: wardrobe
start: ["{url}/shop?page=1", "{url}/style?page=1", "{url}/style/post-900000"]
robots_sitemaps: true
rules:
  - {{match: '/p/[^/?]+$', kind: product}}
  - {{match: '/style/post-\\d+$', kind: post}}
  - {{match: '/(shop|style)\\?page=\\d+', kind: page}}
  - {{match: '/style/(calendar|visit)/', kind: page}}
  - {{match: '/(account|cart)', kind: page}}
kinds:
  product:
    record: product
    fields:
      title: {{css: h1.title}}
      image: {{css: img.main, attribute: src}}
  post:
    record: post
    fields:
      image: {{css: article.post img.photo, attribute: src, required: true}}
      product_urls: {{css: a.tagged, attribute: href}}
"""


def write_profile(folder: Path, url: str) -> Path:
    path = folder / "profile.yaml"
    path.write_text(PROFILE.format(url=url))
    return path


def config(
    store: Path,
    profile: Path,
    *,
    rate: float | None = None,
    concurrency: int = 8,
    workers: int = 2,
    patience_s: float = 60.0,
    **more,
) -> crawl.Config:
    """As quick as a test needs it. ``patience_s``: a busy machine may take seconds for what takes milliseconds, and a start
    page that comes too late is a crawl of nothing; only of a hostile site is little waited for."""
    values = {
        "fetch": FetchConfig(allow_private_hosts=("127.0.0.1",), deadline_s=patience_s, retries=2, max_bytes=1 << 20),
        "politeness": PolitenessConfig(requests_per_s=rate, concurrency=concurrency, max_wait_s=patience_s),
        "limits": Limits(max_redirects=3, max_urls_below={"/style/calendar/": 3, "/style/visit/": 3}),
        "recrawl": RecrawlConfig(),
        "visit": VisitConfig(threads=16),
        "pool": Pool(workers=workers, num_cpus=2 / workers, batch_rows=64),
        "item_rows": 64,
        "commit_every_s": 1.0,
    }
    return crawl.Config(store=str(store), profile=str(profile), **(values | more))


def crawled(settings: crawl.Config) -> crawl.Result:
    return crawl.main(settings)


def tables(store: Path) -> dict[str, list[str]]:
    """What must be equal however a crawl went: rows as JSON, sorted, without times, runs and addresses."""

    def rows(found) -> list[str]:
        return sorted(json.dumps(row, sort_keys=True, default=repr) for row in found.to_pylist())

    products = ["product_id", "title", "brand", "price", "currency", "category", "url", "image_id", "active", "row_digest"]
    pages = ["url", "visit", "kind", "depth", "state", "reason", "links", "records", "image_id", "content_digest"]
    uri = str(store)
    return {
        "frontier": rows(
            delta.read(uri, schema.FRONTIER, ["url", "kind", "depth", "redirects", "found_on", "state", "reason"])
        ),
        "pages": rows(delta.read(uri, schema.PAGES, pages)),
        "products": rows(current_products(uri, products)),
        "posts": rows(current_posts(uri).drop_columns(["fetched_at"])),
        "images": rows(delta.read(uri, schema.IMAGES, ["image_id", "width", "height", "format", "phash"])),
        "rejects": rows(delta.read(uri, schema.REJECTS, ["key", "stage", "code"])),
    }


def fingerprint(store: Path) -> str:
    return hashlib.sha256(json.dumps(tables(store)).encode()).hexdigest()
