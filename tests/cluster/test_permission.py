"""A site whose pictures come with every kind of signal is crawled, and each job uses just what it may."""

import numpy as np
import pytest

from tests.cluster.crawls import config
from tests.cluster.shops import picture
from tests.cluster.streets import TRUTH, append, split_rows
from tests.unit.web.webs import Page, Web, serve
from w2w import ids, schema
from w2w.crawl import job as crawl
from w2w.crawl.frontier import RecrawlConfig
from w2w.engine.cluster import RayConfig
from w2w.garments.stage import garment_id
from w2w.index import job as index
from w2w.index.manifest import index_uri
from w2w.index.search import open_index
from w2w.mining.pairs import job as mine
from w2w.mining.pairs.rules import PairRules
from w2w.mining.representatives import job as represent
from w2w.models import job as embed
from w2w.stage import Pool
from w2w.table import delta
from w2w.table.current import current_posts, current_products
from w2w.web.permission import UseConfig

RAY, ONE = RayConfig(num_cpus=2), Pool(workers=1, batch_rows=8)
SIGNALS = {  # product -> headers of its picture
    "free": {},
    "noai": {"X-Robots-Tag": "noai"},
    "noindex": {"X-Robots-Tag": "noindex"},
    "signal": {"Content-Signal": "search=yes, ai-train=no"},
    "reserved": {"TDM-Reservation": "1"},
    "other": {"X-Robots-Tag": "somebot: noai, noindex"},
}
PROFILE = """
name: signals
start: ["{url}/"]
rules:
  - {{match: '/p/[^/?]+$', kind: product}}
  - {{match: '/style/[^/?]+$', kind: post}}
kinds:
  product:
    record: product
    fields:
      product_id: {{css: b}}
      title: {{css: h1}}
      category: {{css: i}}
      image: {{css: img, attribute: src}}
  post:
    record: post
    fields:
      post_id: {{css: b}}
      image: {{css: img, attribute: src, required: true}}
      product_ids: {{css: a}}
"""


def tag(page: Page, changed: str = "1", **lines: str) -> Page:
    sent = {"Content-Type": "image/jpeg", "ETag": f'"{changed}"'} | {n.replace("_", "-"): v for n, v in lines.items()}
    return Page(page.body, headers=sent)


def site(rng: np.random.Generator) -> dict[str, Page]:
    """Every product is worn in one post of each of two: one whose photo says nothing, and one of below /private/."""
    pages = {"/robots.txt": Page(b"User-agent: *\nAllow: /\n", headers={"Content-Type": "text/plain"})}
    names, links = list(SIGNALS), []
    for name in names:
        pages[f"/p/{name}"] = Page(f"<b>{name}</b><h1>a {name}</h1><i>top</i><img src=/i/{name}.jpg>".encode())
        pages[f"/i/{name}.jpg"] = tag(Page(picture(rng, 96)), **SIGNALS[name])
        links.append(f"/p/{name}")
    for post, place in (("open", "/i/open.jpg"), ("closed", "/private/closed.jpg")):
        tags = "".join(f"<a>{name}</a>" for name in names)
        pages[f"/style/{post}"] = Page(f"<b>{post}</b><img src={place}>{tags}".encode())
        pages[place] = tag(Page(picture(rng, 240)))
        links.append(f"/style/{post}")
    pages["/.well-known/tdmrep.json"] = Page(b'[{"location": "/private/", "tdm-reservation": 1}]')
    pages["/"] = Page("".join(f"<a href={link}>x</a>" for link in links).encode())
    return pages


@pytest.fixture
def web(tmp_path):
    with serve(site(np.random.default_rng(0))) as web:
        (tmp_path / "profile.yaml").write_text(PROFILE.format(url=web.url))
        yield web


def crawled(tmp_path, **options) -> None:
    again = {"recrawl": RecrawlConfig(after_s=0.0)} | options
    crawl.main(config(tmp_path / "store", tmp_path / "profile.yaml", **again))


def images_of(store: str) -> dict[str, str]:
    rows = current_products(store, [schema.PRODUCT_ID, schema.IMAGE_ID]).to_pylist()
    return {row[schema.PRODUCT_ID]: row[schema.IMAGE_ID] for row in rows}


def indexed(store: str) -> tuple[index.Result, set[str]]:
    done = index.main(index.Config(store=store, ray=RAY))
    opened = open_index(index_uri(store, "default"))
    found = opened.search(np.eye(opened.manifest.dim, dtype=np.float32)[:1], 50)
    return done, set(found.column(schema.PRODUCT_ID).to_pylist())


def garments(store: str) -> None:
    """A garment for each product in each photo, as a detector would find them: here one class, so one garment."""
    posts = current_posts(store).to_pylist()
    rows = []
    for post in posts:
        box = [0.0, 0.0, 60.0, 200.0]
        row = {"image_id": post["image_id"], "category": "top", "score": 0.9, "box_xyxy": box, "crop": b"x"}
        row["crop_source"] = "box"
        row |= {"garment_id": garment_id(post["image_id"], "top", box, TRUTH), "stage_version": TRUTH, "original_label": "x"}
        rows.append(row)
    append(store, schema.GARMENTS, rows, TRUTH)
    looks = [{"image_id": p["image_id"], "num_garments": 1, "crop_source": "garments", "stage_version": TRUTH} for p in posts]
    append(store, schema.LOOKS, looks, TRUTH)


@pytest.mark.slow
def test_each_job_uses_just_what_it_may(web: Web, tmp_path):
    store = str(tmp_path / "store")
    crawled(tmp_path)
    assert set(images_of(store)) == set(SIGNALS) - {"noai"}
    said = {
        row[schema.URI].rpartition("/")[2]: (row[schema.SEARCH], row[schema.TRAINING])
        for row in delta.read(store, schema.PERMISSIONS, [schema.URI, schema.SEARCH, schema.TRAINING]).to_pylist()
    }
    assert said == {
        **dict.fromkeys(("free.jpg", "other.jpg", "open.jpg"), (True, True)),
        "noindex.jpg": (False, True),
        **dict.fromkeys(("signal.jpg", "reserved.jpg", "closed.jpg"), (True, False)),
    }
    embed.main(embed.Config(store=store, pool=ONE, ray=RAY))
    done, there = indexed(store)
    assert there == {"free", "other", "signal", "reserved"}
    assert (done.counts.read, done.counts.out, done.not_permitted) == (4, 4, 1)
    assert index.main(index.Config(store=store, ray=RAY, dry_run=True)).not_permitted == 1

    append(store, schema.SPLITS, split_rows(list(SIGNALS), ["open", "closed"]))
    represent.main(represent.Config(store=store, pool=ONE, ray=RAY))
    garments(store)
    mining = mine.Config(store=store, ray=RAY, rules=PairRules(thumbnail_px=16), shown=0)
    made = mine.main(mining)
    assert made.counts.rejects["not_permitted"] == 5 + 2  # of the closed photo, but for noai, and two products of the open one
    assert made.counts.read == made.counts.out + made.counts.rejected == 12
    refused = {images_of(store)[name] for name in ("signal", "reserved")} | {
        post[schema.IMAGE_ID] for post in current_posts(store).to_pylist() if post[schema.POST_ID] == "closed"
    }
    pairs = delta.read(store, schema.PAIRS, [schema.ANCHOR_IMAGE_ID, schema.IMAGE_ID]).to_pylist()
    assert not {image for pair in pairs for image in pair.values()} & refused
    assert mine.main(mining).unchanged

    # withdrawn: one by a header, one by robots.txt; granted: one
    web.pages["/i/free.jpg"] = tag(web.pages["/i/free.jpg"], "2", X_Robots_Tag="noai")
    web.pages["/i/noindex.jpg"] = tag(web.pages["/i/noindex.jpg"], "2")
    web.pages["/robots.txt"] = Page(b"User-agent: *\nDisallow: /i/other\n", headers={"Content-Type": "text/plain"})
    crawled(tmp_path)
    done, there = indexed(store)
    assert there == {"noindex", "signal", "reserved"}
    assert done.not_permitted == 2
    assert not mine.main(mining).unchanged
    # and back
    web.pages["/i/free.jpg"] = tag(web.pages["/i/free.jpg"], "3")
    web.pages["/robots.txt"] = Page(b"")
    crawled(tmp_path)
    assert indexed(store)[1] == {"free", "other", "noindex", "signal", "reserved"}
    # the site's owner: it is all theirs
    crawled(tmp_path, use=UseConfig(search="allowed", training="allowed"))
    assert mine.main(mining).pictures_not_permitted is None
    assert ids.digest(sorted(images_of(store))) == ids.digest(sorted(set(SIGNALS) - {"noai"}))
