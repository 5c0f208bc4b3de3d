"""The wardrobe shop's hostile twin, what a good crawler makes of it, and a check of the request log for politeness.

python -m tests.cluster.hostile FOLDER [--port 0] [--log requests.jsonl], or ``serve`` below.

Traps stand among the good products and posts, in listings, sitemap and feed. An image trap is the picture of the good page
``/p/with-NAME``. ``expected`` says how each path ends for a crawler with a deadline of a few seconds, a body cap of 1 to 20 MB,
at least 2 retries and a Retry-After that it waits for up to its deadline. ``ENDLESS`` are the paths without end: a crawler asks
for no more of them than its limits of count or depth say.

    throttle    busy-seconds  busy-date    429 and Retry-After once, then good
                busy-forever               429 with Retry-After of an hour, always
                burst  fails-forever       503 twice, then good; 500 always
    time        drip-body  drip-head  continues  silent  /images/trap-drip     a byte now and then, or nothing
    redirects   moved  moved-too           to one good product, which is linked as well
                loop-a <-> loop-b  endless-hops  nowhere  bad-location
                to-file  to-account        to file:, to a page that robots.txt disallows
                to-metadata ...            to private addresses by every spelling; those that can be reached count as CANARY
    lengths     length-huge  length-poison length of 10 GB; a forged second answer behind the first
                length-missing  /images/trap-cut
    coding      gzip  gzip-bomb  not-gzip  /sitemap-bomb.xml.gz (64 MB; the protocol allows 50)
    types       jpeg-as-html  jpeg  pdf  /images/trap-html  /images/trap-typed-html  /images/trap-empty  empty  no-content
    HTML        broken-html  no-fields  json-ld-broken  json-ld-deep  og-only  microdata-only
    charsets    latin-1-header  latin-1-undeclared  shift-jis-meta  shift-jis-header  utf-16-bom  utf-16-header  wrong-charset
    status      missing  gone  forbidden  unauthorised  teapot  unasked-304
    wire        tls  reset  reset-once  many-headers
    wishes      noai  other-bot-noai  /images/trap-noimageai     X-Robots-Tag
    changes     /images/trap-changing      another picture each time it is asked for
    links       /style/post-900000         duplicates by tracking parameters, fragments, case, dot segments and session ids;
                                           no scheme, other schemes, credentials, other hosts, broken URLs
    endless     /style/calendar/...  /style/visit/...
"""

import email.utils
import functools
import gzip
import itertools
import json
import posixpath
import re
import socket
import struct
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from w2w.wardrobe import site
from w2w.wardrobe.pages import HTML, JPEG, TEXT, Post, Reply, Site
from w2w.wardrobe.site import Handler, Served, Server

CANARY = "canary"  # the target of log lines that stand for a connection to a private address
ENDLESS = ("/style/calendar/", "/style/visit/")
LINKS = "post-900000"
POISON = "Poisoned by the answer before"
_HOLD_S = 120.0  # how long a slow trap holds out
_LINK_DUPLICATES = 12  # of one product, in other words


class End(NamedTuple):
    """How a path ends: ``done``, ``never`` asked for, or ``rejected`` for a reason of one of these kinds (empty: of any).

    A kind is a key of REASONS. A redirect may end at its source (``blocked``), or as ``moved`` with its target excluded.
    """

    state: str
    kinds: tuple[str, ...] = ()


# kinds of reasons, and what w2w calls them in ``pages.reason`` and as reject codes
REASONS = {
    "gone": {"not_found"},
    "forbidden": {"forbidden"},
    "failed": {"fetch_failed", "host_busy"},  # after the retries, or no HTTP
    "slow": {"too_slow"},
    "big": {"too_many_bytes"},
    "blocked": {"blocked_url"},  # address or scheme
    "moved": {"moved"},
    "limit": {"over_limit"},
    "robots": {"disallowed"},
    "noai": {"disallowed"},
    "type": {"wrong_type", "not_an_image", "unsupported"},
    "empty": {"empty", "missing_field"},
    "truncated": {"truncated", "corrupt"},
    "extract": {"missing_field", "bad_value"},  # a required field is not there
}
DONE, NEVER = End("done"), End("never")


def rejected(*kinds: str) -> End:
    return End("rejected", kinds)


def agrees(end: End, reason: str | None) -> bool:
    """Whether a URL that ended for ``reason`` (of ``pages`` or ``frontier``; None: never heard of) ended as it should."""
    if end.state == "never":
        return reason in (None, "disallowed", "blocked_url", "over_limit")
    if end.state == "done":
        return reason in ("ok", "not_modified", "same_content", "moved")
    return reason in set().union(*(REASONS[kind] for kind in end.kinds or REASONS))


class Hostile(Handler):
    """Plays a trap where there is one; everything else is the good site."""

    server: "HostileServer"

    def answer(self) -> None:
        path = urlsplit(self.path).path
        asked = self.server.count(path)
        if path in TRAPS:
            TRAPS[path].play(self, asked)
        elif path.startswith("/p/endless-hops"):
            number = int(path.rpartition("-")[2]) if path[-1].isdigit() else 0
            self.send(_redirect(f"/p/endless-hops-{number + 1}"))
        else:
            super().answer()

    def good(self) -> Reply:
        """What the good site says here."""
        return self.server.site.reply(unquote(urlsplit(self.path).path), {}, self.base)

    def drop(self, piece: bytes, cut: bool = True) -> None:
        """Sends the piece as it is and closes the connection; ``cut`` notes that the answer was not whole."""
        self.close_connection = True
        self._line["cut"] = cut
        self.write(piece, last=True)

    def reset(self) -> None:
        """Ends the connection by RST."""
        self.drop(b"")
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        socket.close(self.connection.detach())


class Trap(NamedTuple):
    """How it ends for a good crawler, and what is sent at the ``asked``-th request: ``play(handler, asked)``."""

    end: End
    play: Callable[[Hostile, int], None]


# plays


def _redirect(location: str, status: int = 302) -> Reply:
    return Reply(status, b"", TEXT, headers={"Location": location})


def _says(status: int, body: bytes = b"", content_type: str = TEXT, **headers: str) -> Callable[[Hostile, int], None]:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda h, asked: h.send(Reply(status, body, content_type, headers=headers))


def _goes(location: str) -> Callable[[Hostile, int], None]:
    """A redirect; ``{canary}`` and ``{port}`` are those ports."""
    return lambda h, asked: h.send(_redirect(location.format(canary=h.server.canary_port, port=h.server.server_port)))


def _first(times: int, reply: Callable[[], Reply]) -> Callable[[Hostile, int], None]:
    return lambda h, asked: h.send(reply() if asked <= times else h.good())


def _changed(**parts: object) -> Callable[[Hostile, int], None]:
    """The good page with another header, status or type."""
    return lambda h, asked: h.send(replace(h.good(), **parts))


def _body(change: Callable[[bytes], bytes], content_type: str = HTML, **headers: str) -> Callable[[Hostile, int], None]:
    def play(h: Hostile, asked: int) -> None:
        good = h.good()
        headers_ = {name.replace("_", "-"): value for name, value in headers.items()}
        h.send(replace(good, body=change(good.body), content_type=content_type, headers=headers_))

    return play


def _text(encoding: str, meta: str, header: str = "text/html") -> Callable[[Hostile, int], None]:
    """The good page in another encoding, with this <meta> in place of UTF-8's."""

    def change(body: bytes) -> bytes:
        return body.decode().replace('<meta charset="utf-8">', meta).encode(encoding)

    return _body(change, header)


def _drips(start: bytes, piece: bytes) -> Callable[[Hostile, int], None]:
    return lambda h, asked: h.drip(start, piece, 0.1, _HOLD_S)


def _length_missing(h: Hostile, asked: int) -> None:
    h.close_connection = True
    h.drop(h.head(200, {"Content-Type": HTML}) + h.good().body, cut=False)


def _length_over(h: Hostile, asked: int) -> None:
    h.drop(h.head(200, {"Content-Type": JPEG, "Content-Length": "99999"}) + _picture(h, 0)[:2000])


def _length_poison(h: Hostile, asked: int) -> None:
    good = h.good()
    forged = good.body.replace(b"Trap ", POISON.encode() + b" ")
    answer = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(forged)}\r\n\r\n".encode() + forged
    headers = {"Content-Type": good.content_type, "Content-Length": str(len(good.body))}
    h.write(h.head(200, headers) + good.body + answer, last=True)


def _reset_mid_body(h: Hostile) -> None:
    h.write(h.head(200, {"Content-Type": HTML, "Content-Length": "5000"}) + b"<html>" * 100)
    h.hold(0.05)
    h.reset()


def _no_data(body: bytes) -> bytes:
    """Without JSON-LD, OpenGraph and the classes that a selector would name."""
    body = re.sub(rb"<script.*?</script>|<meta property.*?>", b"", body, flags=re.DOTALL)
    return re.sub(rb"<article.*</article>", b"<p>Sold out.</p>", body, flags=re.DOTALL)


def _json_ld(text: str) -> Callable[[bytes], bytes]:
    script = f'<script type="application/ld+json">{text}</script>'.encode()
    return lambda body: re.sub(rb"<script.*?</script>", script, body, flags=re.DOTALL)


def _og_only(body: bytes) -> bytes:
    kept = b"".join(re.findall(rb"<meta property.*?>", body))
    return _no_data(body).replace(b"</head>", kept + b"</head>")


def _microdata_only(body: bytes) -> bytes:
    data = json.loads(re.search(rb"ld\+json\">(.*?)</script>", body, re.DOTALL)[1])
    item = (
        '<div itemscope itemtype="https://schema.org/Product"><h2 itemprop="name">{name}</h2>'
        '<img itemprop="image" src="{image}"><span itemprop="sku">{sku}</span><span itemprop="category">{category}</span>'
        '<div itemprop="brand" itemscope itemtype="https://schema.org/Brand"><span itemprop="name">{brand}</span></div>'
        '<div itemprop="offers" itemscope itemtype="https://schema.org/Offer">'
        '<meta itemprop="priceCurrency" content="{currency}">'
        '<span itemprop="price" content="{price}">{price}</span></div></div>'
    ).format(
        name=data["name"],
        image=data["image"][0],
        sku=data["sku"],
        category=data["category"],
        brand=data["brand"]["name"],
        price=data["offers"]["price"],
        currency=data["offers"]["priceCurrency"],
    )
    return _no_data(body).replace(b"<p>Sold out.</p>", item.encode())


def _broken(body: bytes) -> bytes:
    """Not one closing tag in the page, quotes missing, a comment that never ends, and bytes that are no text."""
    body = re.sub(rb"</(?!script|title|style)[^>]*>", b"", body).replace(b'class="title"', b"class=title")
    return b"\x00\xff<<html><body" + body + b"<td></p></b><a href='\"<!-- <p>"


@functools.lru_cache
def _bomb(start: bytes = b"<html>", megabytes: int = 32) -> bytes:
    """A thousandth of its size."""
    return gzip.compress(start + b" " * (megabytes << 20), 9, mtime=0)


def _picture(h: Hostile, number: int) -> bytes:
    """A good JPEG of the shop, and another for each number."""
    names = sorted(p.name for p in (h.server.site.folder / "images").glob("w*-[0-9]*.jpg"))
    body = (h.server.site.folder / "images" / names[number % len(names)]).read_bytes()
    return body[:2] + b"\xff\xfe\x00\x0a" + b"%08d" % number + body[2:]


def _image(**headers: str) -> Callable[[Hostile, int], None]:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    content_type = headers.pop("Content-Type", JPEG)
    return lambda h, asked: h.send(Reply(200, _picture(h, 0), content_type, headers=headers))


def _http_date(seconds: float) -> str:
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
_JPEG_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: 30000\r\n\r\n\xff\xd8"
_BLOCKED, _FAILED, _SLOW, _BIG = rejected("blocked", "moved"), rejected("failed"), rejected("slow"), rejected("big")
_LOOP = rejected("failed", "moved", "limit")
_PRIVATE = {
    "to-metadata": "http://169.254.169.254/latest/meta-data/",
    "to-ten": "http://10.0.0.1/",
    "to-ipv6": "http://[::1]:{canary}/",
    "to-localhost": "http://localhost:{canary}/",
    "to-other-loopback": "http://127.0.0.2:{canary}/",
    "to-mapped": "http://[::ffff:127.0.0.1]:{canary}/",
    "to-zero": "http://0.0.0.0:{canary}/",
    "to-decimal": "http://2130706433:{canary}/",
    "to-hex": "http://0x7f000001:{canary}/",
    "to-short": "http://127.1:{canary}/",
}

TRAPS: dict[str, Trap] = {
    "/p/busy-seconds": Trap(DONE, _first(1, lambda: Reply(429, b"slow down", TEXT, headers={"Retry-After": "1"}))),
    "/p/busy-date": Trap(DONE, _first(1, lambda: Reply(429, b"", TEXT, headers={"Retry-After": _http_date(2)}))),
    "/p/busy-forever": Trap(_FAILED, _says(429, b"slow down", Retry_After="3600")),
    "/p/burst": Trap(DONE, _first(2, lambda: Reply(503, b"busy", TEXT))),
    "/p/fails-forever": Trap(_FAILED, _says(500, b"oops")),
    "/p/drip-body": Trap(_SLOW, _drips(_HEAD + b"Content-Length: 10000\r\n\r\n", b"x")),
    "/p/drip-head": Trap(_SLOW, _drips(_HEAD + b"X-Slow: ", b"x")),
    "/p/continues": Trap(_SLOW, _drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n")),
    "/p/silent": Trap(_SLOW, _drips(b"", b"")),
    "/images/trap-drip.jpg": Trap(_SLOW, _drips(_JPEG_HEAD, b"\x00")),
    "/p/moved": Trap(DONE, lambda h, asked: h.send(_redirect(f"/p/{h.server.site.first_product}", 301))),
    "/p/moved-too": Trap(DONE, lambda h, asked: h.send(_redirect(f"../p/{h.server.site.first_product}#top", 307))),
    "/p/loop-a": Trap(_LOOP, _goes("/p/loop-b")),
    "/p/loop-b": Trap(_LOOP, _goes("/p/loop-a")),
    "/p/nowhere": Trap(_FAILED, _says(302)),
    "/p/bad-location": Trap(rejected("blocked", "failed"), _goes("http://[oops/")),
    "/p/to-file": Trap(rejected("blocked", "moved", "failed"), _goes("file:///etc/passwd")),
    "/p/to-account": Trap(rejected("robots", "moved"), _goes("/account/orders")),
    **{f"/p/{name}": Trap(_BLOCKED, _goes(location)) for name, location in _PRIVATE.items()},
    "/p/length-huge": Trap(_BIG, _drips(_HEAD + b"Content-Length: 10000000000\r\n\r\n", b"x" * 4096)),
    "/p/length-poison": Trap(DONE, _length_poison),
    "/p/length-missing": Trap(DONE, _length_missing),
    "/images/trap-cut.jpg": Trap(_FAILED, _length_over),
    "/p/gzip": Trap(DONE, _body(gzip.compress, Content_Encoding="gzip")),
    "/p/gzip-bomb": Trap(_BIG, _body(lambda body: _bomb(), Content_Encoding="gzip")),
    "/p/not-gzip": Trap(_FAILED, _body(lambda body: body, Content_Encoding="gzip")),
    "/sitemap-bomb.xml.gz": Trap(
        _BIG, lambda h, asked: h.send(Reply(200, _bomb(b"<?xml version='1.0'?><urlset>", 64), "application/gzip"))
    ),
    "/p/jpeg-as-html": Trap(rejected("type", "extract"), lambda h, asked: h.send(Reply(200, _picture(h, 0), HTML))),
    "/p/jpeg": Trap(rejected("type"), lambda h, asked: h.send(Reply(200, _picture(h, 0), JPEG))),
    "/p/pdf": Trap(rejected("type"), _says(200, b"%PDF-1.7\n" + bytes(3000), "application/pdf")),
    "/images/trap-html.jpg": Trap(rejected("type"), _says(200, b"<!doctype html><title>no picture</title>", JPEG)),
    "/images/trap-typed-html.jpg": Trap(rejected("type"), _image(Content_Type="text/html")),
    "/images/trap-empty.jpg": Trap(rejected("empty"), _says(200, b"", JPEG)),
    "/p/empty": Trap(rejected("empty", "extract"), _says(200, b"", HTML)),
    "/p/no-content": Trap(rejected("empty", "extract", "failed"), lambda h, asked: h.write(h.head(204, {}), last=True)),
    "/p/broken-html": Trap(DONE, _body(_broken)),
    "/p/no-fields": Trap(rejected("extract"), _body(_no_data)),
    "/p/json-ld-broken": Trap(DONE, _body(_json_ld('{"@type": "Product", "name": "half'))),
    "/p/json-ld-deep": Trap(DONE, _body(_json_ld("[" * 100_000))),
    "/p/og-only": Trap(DONE, _body(_og_only)),
    "/p/microdata-only": Trap(DONE, _body(_microdata_only)),
    "/p/latin-1-header": Trap(DONE, _text("latin-1", "", "text/html; charset=ISO-8859-1")),
    "/p/latin-1-undeclared": Trap(DONE, _text("latin-1", "")),
    "/p/shift-jis-meta": Trap(DONE, _text("shift_jis", '<meta charset="Shift_JIS">')),
    "/p/shift-jis-header": Trap(DONE, _text("shift_jis", "", 'text/html; charset="shift_jis"')),
    "/p/utf-16-bom": Trap(DONE, _text("utf-16", "")),
    "/p/utf-16-header": Trap(DONE, _text("utf-16-le", "", "text/html;charset=UTF-16LE")),
    "/p/wrong-charset": Trap(DONE, _text("latin-1", '<meta charset="utf-8">', "text/html; charset=no-such-charset")),
    "/p/missing": Trap(rejected("gone"), _says(404)),
    "/p/gone": Trap(rejected("gone"), _says(410)),
    "/p/forbidden": Trap(rejected("forbidden"), _says(403)),
    "/p/unauthorised": Trap(rejected("forbidden"), _says(401, WWW_Authenticate='Basic realm="shop"')),
    "/p/teapot": Trap(_FAILED, _says(418)),
    "/p/unasked-304": Trap(_FAILED, lambda h, asked: h.write(h.head(304, {}), last=True)),
    "/p/tls": Trap(_FAILED, lambda h, asked: h.drop(b"\x15\x03\x01\x00\x02\x02\x28")),
    "/p/reset": Trap(_FAILED, lambda h, asked: _reset_mid_body(h)),
    "/p/reset-once": Trap(DONE, lambda h, asked: _reset_mid_body(h) if asked == 1 else h.send(h.good())),
    "/p/many-headers": Trap(_FAILED, lambda h, asked: h.drop(_HEAD + b"A: b\r\n" * 500 + b"\r\n")),
    "/p/noai": Trap(rejected("noai"), _changed(headers={"X-Robots-Tag": "noai, noimageai"})),
    "/p/other-bot-noai": Trap(DONE, _changed(headers={"X-Robots-Tag": "greedybot: noai"})),
    "/images/trap-noimageai.jpg": Trap(rejected("noai"), _image(X_Robots_Tag="noimageai")),
    "/images/trap-changing.jpg": Trap(
        DONE, lambda h, asked: h.send(Reply(200, _picture(h, asked), JPEG, modified=time.time() // 1))
    ),
}
# what stands in a title, where a crawler can get the encoding wrong
TITLES = {
    **{f"/p/latin-1-{how}": "Robe d'été à pois, 49 £" for how in ("header", "undeclared")},
    **{f"/p/shift-jis-{how}": "東京の青いワンピース" for how in ("meta", "header")},
    **{f"/p/utf-16-{how}": "Платье “été” 東京" for how in ("bom", "header")},
    "/p/wrong-charset": "Robe d'été à pois",  # declared as UTF-8: replacement characters are as right
}
# a client that follows redirects by itself goes round the loop up to its cap
REPEATS = {"/p/loop-a": 20, "/p/loop-b": 20}


class HostileSite(Site):
    """The shop with the traps between its products, and the page of links as its first post."""

    _mixed: tuple[dict, dict] = ({}, {})

    @property
    def first_product(self) -> str:
        return next(iter(super().products()))

    def products(self) -> dict[str, dict[str, str]]:
        good = super().products()
        if self._mixed[0] is not good:
            self._mixed = good, self._mix(good)
        return self._mixed[1]

    def _mix(self, good: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        names = [path[3:] for path in TRAPS if path.startswith("/p/")] + ["endless-hops"]
        names += ["with-" + path[8:-4] for path in TRAPS if path.startswith("/images/")]
        rows = itertools.cycle(row for row in good.values() if "broken" not in row["product_id"])
        traps = []
        for name, row in zip(names, rows):
            image = f"images/{name[5:]}.jpg" if name.startswith("with-") else row["image"]
            title = TITLES.get(f"/p/{name}", f"Trap {name}")
            traps.append(row | {"product_id": name, "sku": name, "title": title, "image": image, "brand": "Plain Goods"})
        pairs = itertools.chain.from_iterable(itertools.zip_longest(good.values(), traps))
        return {row["product_id"]: row for row in pairs if row is not None}

    def posts(self) -> dict[str, Post]:
        good = super().posts()
        return {LINKS: Post(LINKS, next(iter(good.values())).image, (self.first_product,)), **good}

    def reply(self, path: str, query: dict[str, str], base: str) -> Reply:
        if path.startswith(ENDLESS):
            return _next_of_endless(path)
        reply = super().reply(path, query, base)
        if path == f"/style/{LINKS}":
            links = "".join(f'<li><a class="tagged" href="{link}">x</a></li>\n' for link in _links(self.first_product, base))
            more = "".join(f'<a class="next" rel="next" href="{link}">next</a>' for link in ENDLESS_STARTS)
            return replace(reply, body=reply.body.replace(b"</ul></article>", f"{links}</ul>{more}</article>".encode()))
        if path == "/sitemap.xml":
            bomb = f"<sitemap><loc>{base}/sitemap-bomb.xml.gz</loc></sitemap>\n</sitemapindex>"
            return replace(reply, body=reply.body.replace(b"</sitemapindex>", bomb.encode()))
        return reply


ENDLESS_STARTS = ("/style/calendar/2025-01", "/style/visit/1")


def _next_of_endless(path: str) -> Reply:
    """A page with a link to the next month or visit, and one to a page below itself."""
    kind, _, number = path[1:].removeprefix("style/").partition("/")
    numbers = [int(n) for n in re.findall(r"[0-9]{1,9}", number)] or [1]
    if kind == "calendar":
        months = numbers[0] * 12 + (numbers[1] if len(numbers) > 1 else 1)
        following = f"/style/calendar/{months // 12}-{months % 12 + 1:02d}"
    else:
        following = f"/style/visit/{numbers[0] + 1}"
    text = (
        f'<h1>{kind} {numbers}</h1><a class="next" rel="next" href="{following}">next</a> <a class="post" href="{path}/1">x</a>'
    )
    return Reply(200, f"<!doctype html><title>{kind}</title>{text}".encode())


def _links(product: str, base: str) -> list[str]:
    """Hrefs as they stand in HTML. The first ``_LINK_DUPLICATES`` are the first product once more."""
    host = base.removeprefix("http://")
    good = [
        f"/p/{product}?utm_source=mail&amp;utm_medium=x#top",
        f"/p/{product}?gclid=1&amp;fbclid=2",
        f"/p/{product}#reviews",
        f"HTTP://{host.upper()}/p/{product}",
        f"/p/../p/./{product}",
        f"/p/%{ord(product[0]):02x}{product[1:]}",
        f"//{host}/p/{product}",
        f"  /p/{product}\n",
        f"../p/{product}",
        f"/p/{product}?msclkid=8f3a",
        f"/p/{product}?PHPSESSID=77aa",
        f"/p/{product};jsessionid=0A1B?utm_campaign=y",
    ]
    assert len(good) == _LINK_DUPLICATES
    return [
        *good,
        *("javascript:alert(1)", "data:text/html,&lt;p&gt;x", "mailto:a@b.example", "tel:+49", "file:///etc/passwd"),
        *("ftp://127.0.0.1/x", "about:blank", "", "#", "http://", "http://[::1", "http:///x", "https://user@", "\\\\x\\y"),
        f"http://user:secret@{host}/p/credentials",
        f"http://127.0.0.2:{host.rpartition(':')[2]}/p/other-host",
        "https://shop.invalid/p/elsewhere",
        "//cdn.invalid/p/elsewhere",
        "www.shop.invalid/p/elsewhere",  # to the letter a path, in practice a host
        "http://127.0.0.1:99999/p/no-port",
        "/cart?add=1",
        "/account/orders?year=2025",
        "/shop?page=1&amp;sort=price",
    ]


def expected(folder: Path) -> dict[str, End]:
    """Path (with query, where it has one) to how it ends: every trap, and the good pages and pictures of the shop."""
    good = Site(folder)
    ends = {path: trap.end for path, trap in TRAPS.items()} | {"/p/endless-hops": _LOOP}
    ends |= {f"/p/with-{path[8:-4]}": DONE for path in TRAPS if path.startswith("/images/")}
    broken = (rejected("empty"), rejected("type"), rejected("truncated"))  # as write_shop makes them, by number
    for product_id, row in good.products().items():
        ends[f"/p/{quote(product_id)}"] = DONE
        number = int(product_id.rpartition("-")[2])
        ends["/" + row["image"]] = broken[number % 3] if "broken" in product_id else DONE
    for post in good.posts().values():
        ends |= {f"/style/{post.post_id}": DONE, "/" + post.image: DONE}
    ends[f"/style/{LINKS}"] = DONE
    for path in ("/account/orders", "/account/orders?year=2025", "/cart?add=1", "/shop?page=1&sort=price", "/p/credentials"):
        ends[path] = NEVER
    for path in (
        "/p/other-host",
        "/p/elsewhere",
        "/p/no-port",
        "/etc/passwd",
        "/x",
        "/style/www.shop.invalid/p/elsewhere",
        CANARY,
    ):
        ends[path] = NEVER
    return ends


class HostileServer(Server):
    """The twin's server, with listeners on private addresses that note each connection."""

    site: HostileSite
    site_type, handler_type = HostileSite, Hostile

    def __init__(self, *arguments: object):
        super().__init__(*arguments)
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()
        first = socket.create_server(("127.0.0.1", 0))
        self.canary_port = first.getsockname()[1]
        listeners = [first]
        for family, address in ((socket.AF_INET, "127.0.0.2"), (socket.AF_INET6, "::1")):
            try:
                listeners.append(socket.create_server((address, self.canary_port), family=family))
            except OSError:  # a machine without IPv6, or that has one loopback address only
                continue
        for listener in listeners:
            threading.Thread(target=self._sing, args=(listener,), daemon=True).start()

    def count(self, path: str) -> int:
        """How many requests for ``path`` there were, this one included."""
        with self._lock:
            self._asked[path] += 1
            return self._asked[path]

    def _sing(self, listener: socket.socket) -> None:
        while True:
            sock, _ = listener.accept()
            sock.close()
            number, _ = self.log.enter()
            now = {"start": time.monotonic(), "end": time.monotonic(), "wall_start": time.time(), "wall_end": time.time()}
            host = f"{listener.getsockname()[0]}:{self.canary_port}"
            self.log.leave({"number": number, **now, "method": "", "target": CANARY, "host": host, "status": 0, "cut": False})


def serve(folder: Path, log: Path, **options: object) -> AbstractContextManager[Served]:
    """``w2w.wardrobe.site.serve`` for the hostile twin."""
    return site.serve(folder, log, module="tests.cluster.hostile", **options)


# politeness

_TRACKING = re.compile(r"utm_\w+|gclid|fbclid|msclkid|phpsessid|jsessionid", re.IGNORECASE)
_FINAL_CUT_S = 0.5  # a client that goes away is noticed that much later


def page_of(target: str) -> str:
    """What a target means: without fragment, session, tracking parameters, dot segments and needless escapes."""
    parts = urlsplit(target if "://" in target else "http://x" + target)
    path = posixpath.normpath(unquote(re.sub(r";jsessionid=[^/?]*", "", parts.path, flags=re.IGNORECASE)) or "/")
    query = sorted((k, v) for k, v in parse_qsl(parts.query, keep_blank_values=True) if not _TRACKING.fullmatch(k))
    return quote(path) + ("?" + urlencode(query) if query else "")


def allowed(robots: str, target: str, agent: str = "w2w") -> bool:
    """Whether robots.txt lets ``agent`` ask for ``target`` (RFC 9309, section 2.2: the longest matching rule decides)."""
    groups: dict[str, list[tuple[bool, str]]] = defaultdict(list)
    names, in_rules = [], True
    for line in robots.splitlines():
        key, _, value = (part.strip() for part in line.partition("#")[0].partition(":"))
        if key.lower() == "user-agent":
            names, in_rules = ([] if in_rules else names) + [value.lower()], False
        elif key.lower() in ("allow", "disallow"):
            in_rules = True
            for name in names:
                groups[name] += [(key.lower() == "allow", value)] if value else []
    rules = next((rules for name, rules in groups.items() if name != "*" and name in agent.lower()), groups.get("*", []))
    best = (0, True)
    for allow, pattern in rules:
        expression = "".join(".*" if c == "*" else "$" if c == "$" else re.escape(c) for c in pattern)
        if re.match(expression, target):
            best = max(best, (len(pattern), allow))
    return best[1]


def check_politeness(
    log: Iterable[dict],
    rate: float,
    concurrency: int,
    *,
    burst: float = 1.0,
    robots: str = "",
    retries: int = 3,
    repeats: Mapping[str, int] | None = None,
    host_pause_s: float = 0.0,
    slack_s: float = 0.25,
) -> list[str]:
    """What the request log proves against the crawler; [] where it was polite.

    Per host: never more than ``burst + rate x (t + slack_s)`` requests in any time t (what left in time may arrive up to
    ``slack_s`` late); never more than ``concurrency`` in flight; no page asked for again after a final answer, and at most
    ``retries`` times after others (``repeats``: page to how many requests more are in order; REPEATS are those of the redirect
    loop); none before its Retry-After; with ``host_pause_s``, none of that host either, from ``slack_s`` on, for as long as
    Retry-After says and at most for so long; nothing that ``robots`` disallows; no connection to a private address. For a
    second crawl, pass the lines from there on.
    """
    found = []
    hosts: dict[str, list[dict]] = defaultdict(list)
    for line in log:
        if line["target"] == CANARY:
            found.append(f"private address: a connection to {line['host']}")
        else:
            hosts[line["host"].lower()].append(line)
    for host, lines in hosts.items():
        lines.sort(key=lambda line: line["start"])
        found += [f"{host}: {what}" for what in _too_fast(lines, rate, burst, slack_s)]
        found += [f"{host}: {what}" for what in _too_many(lines, concurrency)]
        found += [f"{host}: {what}" for what in _again(lines, retries, repeats or {})]
        found += [f"{host}: {what}" for what in _too_soon(lines, host_pause_s, slack_s)]
        found += [f"{host}: disallowed: {line['target']}" for line in lines if not allowed(robots, line["target"])]
    return found


def _too_fast(lines: Sequence[dict], rate: float, burst: float, slack_s: float) -> Iterable[str]:
    tokens, before = burst, None
    for line in lines:
        if before is not None:
            tokens = min(burst, tokens + (line["start"] - before) * rate)
        before = line["start"]
        tokens -= 1.0
        if tokens < -slack_s * rate - 1e-6:
            yield f"rate: request {line['number']} ({line['target']}) is {-tokens / rate:.2f} s early"
            tokens = 0.0


def _too_many(lines: Sequence[dict], concurrency: int) -> Iterable[str]:
    steps = []
    for line in lines:
        end = line["end"] - _FINAL_CUT_S if line["cut"] else line["end"]
        if end > line["start"]:
            steps += [(line["start"], 1, line), (end, 0, line)]
    steps.sort(key=lambda step: step[:2])
    open_now: dict[int, str] = {}
    most = concurrency
    for _, starts, line in steps:
        if not starts:
            open_now.pop(line["number"], None)
            continue
        open_now[line["number"]] = line["target"]
        if len(open_now) > most:
            most = len(open_now)
            yield f"concurrency: {len(open_now)} in flight at request {line['number']}: {', '.join(open_now.values())}"


def _again(lines: Sequence[dict], retries: int, repeats: Mapping[str, int]) -> Iterable[str]:
    pages: dict[str, list[dict]] = defaultdict(list)
    for line in lines:
        pages[page_of(line["target"])].append(line)
    for page, asked in pages.items():
        final = next((i for i, line in enumerate(asked) if _is_final(line)), len(asked))
        after, tries = max(0, len(asked) - final - 1), min(final + 1, len(asked))
        if after > repeats.get(page, 0):
            yield f"asked again: {page} {after} times after its answer {asked[final]['status']}"
        if tries - 1 > retries + repeats.get(page, 0):
            yield f"asked again: {page} {tries} times in all, never answered"


def _is_final(line: dict) -> bool:
    status = line["status"]
    return not line["cut"] and status >= 200 and status not in (408, 429) and status < 500


def _too_soon(lines: Sequence[dict], host_pause_s: float, slack_s: float) -> Iterable[str]:
    for i, line in enumerate(lines):
        if not line.get("retry_after"):
            continue
        if line["retry_after"].isdigit():
            wait_s = float(line["retry_after"])
        else:
            wait_s = email.utils.parsedate_to_datetime(line["retry_after"]).timestamp() - line["wall_end"]
        for later in lines[i + 1 :]:
            waited = later["start"] - line["end"]
            if page_of(later["target"]) == page_of(line["target"]) and waited < wait_s:
                yield f"Retry-After: {later['target']} after {waited:.2f} s of {wait_s:.2f} s"
            elif slack_s < waited < min(wait_s, host_pause_s):  # what was on its way could not know
                yield f"Retry-After: {later['target']} after {waited:.2f} s of {min(wait_s, host_pause_s):.2f} s for the host"


if __name__ == "__main__":
    site.main(server_type=HostileServer)
