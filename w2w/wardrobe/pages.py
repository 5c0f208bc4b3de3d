"""The shop's web site: from the folder that ``write_shop`` wrote, a path to a reply.

The folder is read at each request: a picture that ``change_shop`` replaces changes the ETag of that picture, of its product's
page and of the sitemap part that dates it, and of nothing else. The ground truth of photos (posts.jsonl) is never served.
"""

import csv
import gzip
import hashlib
import html
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

HTML, XML, JPEG, TEXT = "text/html; charset=utf-8", "application/xml", "image/jpeg", "text/plain"
_URLS_A_SITEMAP = 1000
_STYLE = (
    "body{font:16px sans-serif;max-width:64em;margin:auto;padding:1em}nav a{margin-right:1em}"
    "ul.grid{display:flex;flex-wrap:wrap;gap:1em;list-style:none;padding:0}ul.grid li{width:10em}ul.grid img{width:100%}"
)


@dataclass(frozen=True)
class Reply:
    """A response before it is sent; with a ``modified`` time it supports conditional requests."""

    status: int
    body: bytes
    content_type: str = HTML
    modified: float | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def etag(self) -> str:
        return f'"{_digest(self.body)}"'


@dataclass(frozen=True)
class Post:
    """A street photo and the products that its author tagged."""

    post_id: str
    image: str
    product_ids: tuple[str, ...]


class Site:
    """Paths to replies, from a folder that ``write_shop`` wrote. Thread-safe."""

    def __init__(self, folder: Path, page_size: int = 24, crawl_delay_s: float | None = None):
        self.folder, self.page_size, self.crawl_delay_s = folder, page_size, crawl_delay_s
        self._read: dict[str, tuple[int, dict]] = {}  # parsed files with their mtime

    def products(self) -> dict[str, dict[str, str]]:
        """Feed rows by product id."""

        def parse(text: str) -> dict:
            return {row["product_id"]: row for row in csv.DictReader(text.splitlines(keepends=True))}

        return self._parsed("products.csv", parse)

    def posts(self) -> dict[str, Post]:
        """Posts by id."""

        def parse(text: str) -> dict:
            rows = map(json.loads, text.splitlines())
            return {r["post_id"]: Post(r["post_id"], r["image"], tuple(i["product_id"] for i in r["items"])) for r in rows}

        return self._parsed("posts.jsonl", parse)

    def reply(self, path: str, query: dict[str, str], base: str) -> Reply:
        """The answer to a GET of ``path`` (decoded) with ``query``; ``base`` is scheme and host as the client sees them."""
        kind, _, name = path[1:].partition("/")
        reply = None
        if path == "/":
            reply = self._home(base)
        elif path in ("/shop", "/style", "/feed.json"):
            number = query.get("page", "1")
            reply = self._listing(path, int(number), query, base) if re.fullmatch("[1-9][0-9]{0,8}", number) else None
        elif path == "/robots.txt":
            reply = Reply(200, self._robots(base).encode(), TEXT, self._modified("products.csv"))
        elif path.startswith("/sitemap"):
            reply = self._sitemap(path, base)
        elif kind in ("images", "posts"):
            reply = self._file(path[1:])
        elif kind == "p":
            reply = self._product(name, base)
        elif kind == "style":
            reply = self._post(name, base)
        elif kind in ("account", "cart"):
            text = f"<h1>{html.escape(path)}</h1><p>Only for you.</p><ul>{self._cards(list(self.products())[:3])}</ul>"
            reply = self._page(kind, text, base + path, ("products.csv",))
        return reply or Reply(404, _document("Not found", "<h1>404</h1><p>There is no such page.</p>"))

    # pages

    def _home(self, base: str) -> Reply:
        body = (
            f"<h1>The wardrobe</h1><p>{len(self.products())} products, {len(self.posts())} looks.</p>"
            f'<h2>New in the <a href="/shop?page=1">shop</a></h2><ul class="grid">{self._cards(list(self.products())[:8])}</ul>'
            '<p><a href="/style?page=1">What people wear</a> · <a href="/feed.json">Feed</a></p>'
        )
        return self._page("The wardrobe", body, base + "/", ("products.csv", "posts.jsonl"))

    def _listing(self, path: str, number: int, query: dict[str, str], base: str) -> Reply | None:
        items = list(self.posts() if path == "/style" else self.products())
        num_pages = max(1, -(-len(items) // self.page_size))
        if number > num_pages:
            return None
        shown = items[(number - 1) * self.page_size : number * self.page_size]
        if path == "/feed.json":
            return self._feed(shown, number, num_pages, base)
        if query.get("sort") == "price" and path == "/shop":
            shown.sort(key=lambda p: float(self.products()[p]["price"]))
        cards = self._post_cards(shown) if path == "/style" else self._cards(shown)
        around = [(n, rel) for n, rel in ((number - 1, "prev"), (number + 1, "next")) if 1 <= n <= num_pages]
        steps = " ".join(f'<a class="{rel}" rel="{rel}" href="{path}?page={n}">{rel}</a>' for n, rel in around)
        name = "What people wear" if path == "/style" else "Shop"
        sort = f'<a class="sort" href="/shop?page={number}&amp;sort=price">by price</a>' if path == "/shop" else ""
        text = (
            f"<h1>{name}</h1><p>page {number} of {num_pages} {sort}</p>"
            f'<ul class="grid">{cards}</ul><p class="pages">{steps}</p>'
        )
        source = "posts.jsonl" if path == "/style" else "products.csv"
        return self._page(f"{name}, page {number}", text, f"{base}{path}?page={number}", (source,))

    def _product(self, product_id: str, base: str) -> Reply | None:
        row = self.products().get(product_id)
        if row is None:
            return None
        url, image = f"{base}/p/{quote(product_id)}", f"{base}/{quote(row['image'])}"
        data = {
            "@context": "https://schema.org",
            "@type": "Product",
            "name": row["title"],
            "sku": row["sku"],
            "url": url,
            "image": [image],
            "brand": {"@type": "Brand", "name": row["brand"]},
            "category": row["category"],
            "color": row["colour"],
            "pattern": row["pattern"],
            "offers": {
                "@type": "Offer",
                "price": row["price"],
                "priceCurrency": row["currency"],
                "availability": "https://schema.org/InStock",
            },
        }
        head = _open_graph("product", row["title"], url, image) + "".join(
            f'<meta property="{name}" content="{html.escape(row[column])}">\n'
            for name, column in (
                ("product:price:amount", "price"),
                ("product:price:currency", "currency"),
                ("product:brand", "brand"),
                ("product:category", "category"),
                ("product:retailer_item_id", "sku"),
            )
        )
        e = {name: html.escape(value) for name, value in row.items()}
        picture = self.folder / row["image"]
        version = _digest(picture.read_bytes()) if picture.exists() else "none"
        text = (
            f'<article class="product" data-product-id="{e["product_id"]}"><h1 class="title">{e["title"]}</h1>'
            f'<img class="main" src="/{quote(row["image"])}" alt="{e["title"]}" data-version="{version}">'
            f'<p class="brand">{e["brand"]}</p><p class="price"><span class="amount">{e["price"]}</span> '
            f'<span class="currency">{e["currency"]}</span></p><p class="category">{e["category"]}</p>'
            f"<dl><dt>Colour</dt><dd>{e['colour']}</dd><dt>Pattern</dt><dd>{e['pattern']}</dd><dt>Style</dt><dd>{e['style']}</dd>"
            f'</dl><a class="buy" rel="nofollow" href="/cart?add={quote(product_id)}">Add to cart</a></article>'
        )
        return self._page(row["title"], text, url, ("products.csv", row["image"]), head + _json_ld(data))

    def _post(self, post_id: str, base: str) -> Reply | None:
        post = self.posts().get(post_id)
        if post is None:
            return None
        number = int(post_id.rpartition("-")[2])
        author = f"walker{number % 17}"
        written = f"2025-{number // 28 % 12 + 1:02d}-{number % 28 + 1:02d}"
        url, image = f"{base}/style/{quote(post_id)}", f"{base}/{quote(post.image)}"
        name = f"Look {number} by {author}"
        data = {
            "@context": "https://schema.org",
            "@type": "SocialMediaPosting",
            "identifier": post_id,
            "headline": name,
            "url": url,
            "image": image,
            "author": {"@type": "Person", "name": author},
            "datePublished": written,
            "mentions": [{"@type": "Product", "sku": p, "url": f"{base}/p/{quote(p)}"} for p in post.product_ids],
        }
        worn = "".join(
            f'<li><a class="tagged" href="/p/{quote(p)}">{html.escape(self._title(p))}</a></li>' for p in post.product_ids
        )
        text = (
            f'<article class="post" data-post-id="{html.escape(post_id)}"><h1>{name}</h1><time datetime="{written}">{written}'
            f'</time><img class="photo" src="/{quote(post.image)}" alt="{name}"><h2>Worn here</h2><ul class="worn">{worn}</ul>'
            "</article>"
        )
        head = _open_graph("article", name, url, image) + _json_ld(data)
        return self._page(name, text, url, ("posts.jsonl", "products.csv", post.image), head)

    def _page(self, name: str, text: str, canonical: str, sources: Sequence[str], head: str = "") -> Reply:
        link = f'<link rel="canonical" href="{html.escape(canonical)}">\n'
        return Reply(200, _document(name, text, link + head), HTML, max(map(self._modified, sources)))

    def _cards(self, product_ids: Sequence[str]) -> str:
        return "".join(
            f'<li><a class="product" href="/p/{quote(p)}">'
            f'<img src="/{quote(self.products()[p]["image"])}" alt="" loading="lazy">'
            f"{html.escape(self._title(p))}</a></li>"
            for p in product_ids
        )

    def _post_cards(self, post_ids: Sequence[str]) -> str:
        return "".join(
            f'<li><a class="post" href="/style/{quote(p)}"><img src="/{quote(self.posts()[p].image)}" alt="" loading="lazy">'
            f"{html.escape(p)}</a></li>"
            for p in post_ids
        )

    def _title(self, product_id: str) -> str:
        return self.products().get(product_id, {}).get("title", product_id)

    # machine-readable files

    def _robots(self, base: str) -> str:
        delay = f"Crawl-delay: {self.crawl_delay_s:g}\n" if self.crawl_delay_s is not None else ""
        return (
            "# The wardrobe\nUser-agent: greedybot\nDisallow: /\n\n"
            "User-agent: *\nDisallow: /account/\nAllow: /account/help\nDisallow: /cart\nDisallow: /*sort=\n"
            f"{delay}\nSitemap: {base}/sitemap.xml\n"
        )

    def _sitemap(self, path: str, base: str) -> Reply | None:
        products = [("p/" + quote(p), row["image"]) for p, row in self.products().items()]
        posts = [("style/" + quote(p.post_id), p.image) for p in self.posts().values()]
        parts = {
            f"/sitemap-{name}-{i // _URLS_A_SITEMAP + 1}.xml{suffix}": pages[i : i + _URLS_A_SITEMAP]
            for name, suffix, pages in (("products", "", products), ("posts", ".gz", posts))
            for i in range(0, len(pages), _URLS_A_SITEMAP)
        }
        start = '<?xml version="1.0" encoding="UTF-8"?>\n'
        space = "http://www.sitemaps.org/schemas/sitemap/0.9"
        modified = max(self._modified("products.csv"), self._modified("posts.jsonl"))
        if path == "/sitemap.xml":
            rows = "".join(f"<sitemap><loc>{base}{part}</loc></sitemap>\n" for part in parts)
            return Reply(200, f'{start}<sitemapindex xmlns="{space}">\n{rows}</sitemapindex>\n'.encode(), XML, modified)
        if path not in parts:
            return None
        dates = [max(modified, self._modified(image)) for _, image in parts[path]]
        rows = "".join(
            f"<url><loc>{base}/{page}</loc><lastmod>{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(date))}</lastmod>"
            f"<image:image><image:loc>{base}/{quote(image)}</image:loc></image:image></url>\n"
            for (page, image), date in zip(parts[path], dates)
        )
        images = "http://www.google.com/schemas/sitemap-image/1.1"
        body = f'{start}<urlset xmlns="{space}" xmlns:image="{images}">\n{rows}</urlset>\n'.encode()
        if path.endswith(".gz"):
            return Reply(200, gzip.compress(body, mtime=0), "application/gzip", max(dates))
        return Reply(200, body, XML, max(dates))

    def _feed(self, product_ids: Sequence[str], number: int, num_pages: int, base: str) -> Reply:
        """JSON Feed 1.1 (jsonfeed.org); what the format has no name for goes under ``_product``."""
        rows = [self.products()[p] for p in product_ids]
        items = [
            {
                "id": row["product_id"],
                "url": f"{base}/p/{quote(row['product_id'])}",
                "title": row["title"],
                "image": f"{base}/{quote(row['image'])}",
                "_product": {name: row[name] for name in ("brand", "price", "currency", "category", "colour", "sku")},
            }
            for row in rows
        ]
        feed = {"version": "https://jsonfeed.org/version/1.1", "title": "The wardrobe", "home_page_url": base + "/"}
        if number < num_pages:
            feed["next_url"] = f"{base}/feed.json?page={number + 1}"
        body = json.dumps(feed | {"items": items}, ensure_ascii=False).encode()
        return Reply(200, body, "application/feed+json", self._modified("products.csv"))

    def _file(self, name: str) -> Reply | None:
        path = self.folder / name
        if not re.fullmatch(r"(images|posts)/[\w-][\w.-]*\.jpg", name) or not path.is_file():
            return None
        return Reply(200, path.read_bytes(), JPEG, path.stat().st_mtime)

    def _modified(self, name: str) -> float:
        try:
            return (self.folder / name).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def _parsed(self, name: str, parse) -> dict:
        stamp = (self.folder / name).stat().st_mtime_ns
        held = self._read.get(name)
        if held is None or held[0] != stamp:
            held = self._read[name] = stamp, parse((self.folder / name).read_text("utf-8"))
        return held[1]


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:20]


def _document(name: str, text: str, head: str = "") -> bytes:
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n<title>{html.escape(name)}</title>\n'
        f"<style>{_STYLE}</style>\n{head}</head>\n"
        '<body><nav><a href="/">Home</a> <a href="/shop?page=1">Shop</a> <a href="/style?page=1">Looks</a> '
        f'<a href="/account/orders">Orders</a> <a href="/account/help">Help</a></nav>\n{text}\n</body></html>\n'
    ).encode()


def _open_graph(kind: str, name: str, url: str, image: str) -> str:
    values = {"og:type": kind, "og:title": name, "og:url": url, "og:image": image, "og:site_name": "The wardrobe"}
    return "".join(f'<meta property="{key}" content="{html.escape(value)}">\n' for key, value in values.items())


def _json_ld(data: dict) -> str:
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")  # no title can end the script
    return f'<script type="application/ld+json">{text}</script>\n'
