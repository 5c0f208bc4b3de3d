"""Feeds on the web: fetched when they changed, kept in the store, never taken for what they are not."""

import base64
import gzip
import hashlib
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.unit.nights.nights import Clock, Item, Shop, jpeg, night, num_rows, products, without_ray
from w2w import schema
from w2w.cli import init
from w2w.config import parse
from w2w.errors import BadInput, JobFailed, UsageError
from w2w.ingest.feed import FeedConfig, check_feed
from w2w.ingest.loading import FeedFetchConfig
from w2w.nightly import job as nightly
from w2w.table import delta
from w2w.web import fetch as fetching

LOCAL = FeedFetchConfig(allow_private_hosts=("127.0.0.1",), requests_per_s=None, retries=0)
PAGE = b"<!-- cache --><!DOCTYPE html><html><body>Please log in</body></html>"


class Web:
    """A shop's server: ``feed`` is the body below /feeds/, with ``head`` beside or in place of what it says by itself."""

    def __init__(self):
        self.feed, self.head, self.status, self.heads, self.files = b"", dict[str, str | None](), 200, [], {}
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                web.heads.append(dict(self.headers) | {"path": self.path})
                body = web.files.get(self.path, web.feed)
                etag = f'"{hashlib.sha256(body).hexdigest()[:8]}"'
                same = web.status == 200 and self.headers.get("If-None-Match") == etag
                self.send_response(304 if same else web.status)
                head = {"ETag": etag} | ({} if same else {"Content-Length": str(len(body))}) | web.head
                for name, value in head.items():
                    if value is not None:
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(b"" if same else body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/feeds"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def web(monkeypatch) -> Iterator[Web]:
    monkeypatch.setattr(fetching, "_BACKOFF_S", 0.01)
    without_ray(monkeypatch)
    made = Web()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def shop(tmp_path, web) -> Shop:
    (tmp_path / "shop").mkdir()
    made = Shop(tmp_path / "shop")
    for n in range(6):
        web.files[f"/feeds/pictures/{n}.jpg"] = jpeg(n)
        made.items[f"p{n}"] = Item(f"pictures/{n}.jpg")
    return made


def fetched(store: str, web: Web, name: str = "export.csv", /, **options):
    feed = {"uri": f"{web.url}/{name}", "full": True} | options.pop("feed", {})
    return night(store, Shop(Path(store).parent / "shop"), feed, fetch=LOCAL, **options)


def copies(store: str) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in Path(store).glob("_feeds/**/*") if p.is_file()}


def test_an_unchanged_feed_is_not_fetched_again(store, shop, web, monkeypatch):
    clock = Clock(monkeypatch)
    web.feed = gzip.compress(Path(shop.write()).read_bytes())
    first = fetched(store, web, "export.csv.gz?token=secret")
    assert (first.counts.out, first.feed_on_the_web) == (6, f"fetched, {len(web.feed):,} bytes")
    assert products(store)["p3"]["image_uri"] == f"{web.url}/pictures/3.jpg"  # relative to the feed's own address
    kept = copies(store)
    about = json.loads(kept["_feeds/main/about.json"])
    assert kept["_feeds/main/feed.csv.gz"] == web.feed
    web.heads.clear()
    clock.sleep(1)
    again = fetched(store, web, "export.csv.gz?token=secret")
    assert (again.versions, again.feed_on_the_web, again.feed_rows) == ({}, f"unchanged since {about['fetched_at']}", 6)
    assert [h["If-None-Match"] for h in web.heads] == [about["etag"]]
    assert copies(store) == kept
    shop.say("p4", price="12.00")
    web.feed = gzip.compress(Path(shop.write()).read_bytes())
    tried = fetched(store, web, "export.csv.gz?token=secret", dry_run=True)
    assert (tried.pending, copies(store)) == (1, kept)
    assert fetched(store, web, "export.csv.gz?token=secret").counts.out == 1
    assert (products(store)["p4"]["price"], copies(store) == kept) == (12, False)
    other = fetched(store, web, "export.csv.gz?token=other")  # another address has another version
    assert ("If-None-Match" in web.heads[-1], other.feed_rows) == (False, 6)
    assert other.feed_on_the_web.startswith("fetched, ")
    lineage = delta.history(delta.open_table(store, schema.PRODUCTS))[0]["w2w"]
    assert lineage["config"]["feed"]["uri"] == f"{web.url}/export.csv.gz?...."
    everything = b"".join(p.read_bytes() for p in Path(store).rglob("*") if p.is_file())
    assert b"secret" not in everything
    assert b"127.0.0.1" in everything


def test_a_missing_product_goes_though_the_feed_stays_as_it_is(store, shop, web, monkeypatch):
    clock = Clock(monkeypatch)
    web.feed = Path(shop.write()).read_bytes()
    fetched(store, web)
    del shop.items["p3"]
    web.feed = Path(shop.write()).read_bytes()
    clock.sleep()
    assert fetched(store, web).withdrawn == 0
    clock.sleep()
    last = fetched(store, web)
    assert (last.withdrawn, last.feed_on_the_web.split()[0]) == (1, "unchanged")


NO_FEEDS = [
    (b"product_id,image\np1,a.jpg\n", {"Content-Length": "99999"}, 200, JobFailed, "the body ended .* bytes early"),
    (PAGE, {"Content-Type": "text/csv"}, 200, JobFailed, "a web page instead of a feed"),
    (gzip.compress(PAGE), {}, 200, JobFailed, "a web page instead of a feed"),
    (b"", {}, 200, JobFailed, "an empty file"),
    (b"\xef\xbb\xbf \n", {}, 200, BadInput, "empty"),
    (gzip.compress(b"product_id,image\n" + b"a,b\n" * 9999)[:-9], {}, 200, JobFailed, "cannot be read to its end"),
    (b"PK\x03\x04....", {}, 200, JobFailed, "a zip archive"),
    (b"product_id,image\n", {}, 200, BadInput, "the feed has no rows"),
    (b'{"error": "quota exceeded"}', {}, 200, BadInput, "only one column"),
    (b"no", {}, 401, JobFailed, r"HTTP 401\. does the feed need other credentials \(feed\.headers_env, feed\.auth_env\)\?"),
    (b"no", {}, 403, JobFailed, "HTTP 403"),
    (b"no", {}, 404, JobFailed, "HTTP 404"),
    (b"no", {}, 503, JobFailed, "HTTP 503"),
    (b"", {"Location": "http://169.254.169.254/latest"}, 302, UsageError, "169.254.169.254 is not a public address"),
    (b"x" * (1 << 20) + b"x", {}, 200, JobFailed, "more than 1048576 bytes. feed.max_mb allows more"),
]


def test_what_is_no_feed_withdraws_nothing(store, shop, web):
    web.feed = good = Path(shop.write()).read_bytes()
    fetched(store, web)
    before, kept = num_rows(store), copies(store)
    for body, head, status, error, said in NO_FEEDS:
        web.feed, web.head, web.status = body, head, status
        for dry_run in (True, False):
            with pytest.raises(error, match=said) as caught:
                fetched(store, web, dry_run=dry_run, withdraw_missing=6, feed={"max_mb": 1})
            assert "/feeds/export.csv" in str(caught.value) or "169.254" in str(caught.value)
        assert (num_rows(store), copies(store)) == (before, kept)
    web.feed, web.head, web.status = good, {}, 200
    assert fetched(store, web).feed_on_the_web.startswith("unchanged")


def test_a_killed_run_leaves_no_copy_that_is_taken_for_another(store, shop, web, monkeypatch):
    web.feed = Path(shop.write()).read_bytes()
    fetched(store, web)
    shop.say("p4", price="12.00")
    changed = Path(shop.write()).read_bytes()
    (Path(store) / "_feeds/main/feed.csv").write_bytes(changed[:200])  # written, but not described
    web.heads.clear()
    assert fetched(store, web).versions == {}
    assert "If-None-Match" not in web.heads[0]
    assert copies(store)["_feeds/main/feed.csv"] == web.feed


def test_an_answer_without_a_length_is_not_trusted_to_be_whole(store, shop, web):
    web.feed, web.head = Path(shop.write()).read_bytes(), {"Content-Length": None, "Connection": "close"}
    fetched(store, web)
    web.heads.clear()
    assert fetched(store, web).feed_on_the_web.startswith("unchanged since")
    assert "If-None-Match" not in web.heads[0]


@pytest.mark.parametrize(
    ("name", "head", "file"),
    [
        ("export", {"Content-Type": "text/csv; charset=utf-8"}, "feed.csv"),
        ("export.php?id=3", {"Content-Disposition": 'attachment; filename="all.csv"'}, "feed.csv"),
        ("export.tsv.gz", {}, "feed.csv"),
    ],
)
def test_what_a_feed_is_is_told_by_its_name_or_its_type(store, shop, web, name, head, file):
    web.feed, web.head = Path(shop.write()).read_bytes(), head
    assert fetched(store, web, name).counts.out == 6
    assert f"_feeds/main/{file}" in copies(store)
    web.head, web.feed = {}, web.feed + b"\n"
    with pytest.raises(UsageError, match=r"set feed\.kind"):
        fetched(store, web, "export")


def test_credentials_come_from_the_environment_and_go_to_one_host(store, shop, web, monkeypatch, tmp_path):
    monkeypatch.setenv("SHOP_LOGIN", "me:s3cret")
    monkeypatch.setenv("SHOP_TOKEN", "tok3n")
    web.feed = Path(shop.write()).read_bytes()
    feed = {"auth_env": "SHOP_LOGIN", "headers_env": {"X-Token": "SHOP_TOKEN"}}
    fetched(store, web, feed=feed)
    said = web.heads[0]
    assert said["Authorization"] == f"Basic {base64.b64encode(b'me:s3cret').decode()}"
    assert (said["X-Token"], "X-Token" in web.heads[-1]) == ("tok3n", False)  # the last is a picture
    other = Web()
    other.feed = web.feed
    web.status, web.head = 302, {"Location": f"{other.url}/export.csv"}
    fetched(store, web, feed=feed)
    assert web.heads[-1]["X-Token"] == "tok3n"
    assert not {"X-Token", "Authorization"} & set(other.heads[0])
    other.server.shutdown()
    web.status, web.head = 403, {}
    with pytest.raises(JobFailed) as caught:
        fetched(store, web, feed=feed)
    everything = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    for secret in ("s3cret", "tok3n", "bWU6czNjcmV0"):
        assert secret not in str(caught.value)
        assert secret.encode() not in everything


@pytest.mark.parametrize(
    ("feed", "said"),
    [
        ({"uri": "https://me:pw@shop.example/a.csv"}, r"password is not fetched; put USER:PASSWORD into an environment"),
        ({"uri": "https://shop.example/a.csv", "auth_env": "NOWHERE"}, "feed.auth_env=NOWHERE: there is no such environment"),
        ({"uri": "https://shop.example/a.csv", "auth_env": "BAD"}, "printable ASCII"),
        ({"uri": "https://shop.example/a.csv", "auth_env": "TOKEN"}, "must hold USER:PASSWORD"),
        ({"uri": "https://shop.example/a.csv", "headers_env": {"Host": "TOKEN"}}, "not a header that can be set"),
        ({"uri": "https://shop.example/a.csv", "headers_env": {"A B": "TOKEN"}}, "not a header that can be set"),
        ({"uri": "http://shop.example/a.csv", "headers_env": {"X-Key": "TOKEN"}}, "over https alone"),
        ({"uri": "feed.csv", "headers_env": {"X-Key": "TOKEN"}}, "only for a feed on the web"),
        ({"uri": "https://shop.example/a.tar", "kind": "tar"}, "only csv, jsonl, xml and parquet"),
        ({"uri": "https://shop.example/a.csv", "max_mb": 0}, "feed.max_mb=0: must be above zero"),
        ({"uri": "http://10.0.0.1/a.csv"}, "10.0.0.1 is not a public address; see fetch.allow_private_hosts"),
        ({"uri": "https://1.1.1.1/a.csv"}, "fetch.contact is not set"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_fetched(store, shop, web, monkeypatch, feed, said):
    monkeypatch.setenv("BAD", "a\r\nHost: b")
    monkeypatch.setenv("TOKEN", "tok3n")
    monkeypatch.chdir(Path(shop.write()).parent)
    with pytest.raises(UsageError, match=said) as caught:
        fetched(store, web, feed=feed)
    assert "pw" not in str(caught.value).replace("password", "")
    assert "tok3n" not in str(caught.value)
    assert web.heads == []


def test_a_certificate_that_nobody_signed_is_refused(store, shop, web, monkeypatch, tmp_path):
    def wrap(self, sock, server_hostname):
        sock.close()
        error = ssl.SSLCertVerificationError("certificate verify failed")
        error.verify_message = "self-signed certificate"
        raise error

    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", wrap)
    with pytest.raises(JobFailed, match="certificate refused: self-signed certificate"):
        fetched(store, web, feed={"uri": f"{web.url.replace('http', 'https')}/a.csv"})


def test_init_writes_a_config_of_a_feed_on_the_web(tmp_path, shop, web, monkeypatch):
    monkeypatch.setenv("TOKEN", "tok3n")
    web.feed = Path(shop.write()).read_bytes().replace(b"product_id", b"sku").replace(b",image", b",picture")
    told = {"headers_env": {"X-Key": "TOKEN"}, "fetch": LOCAL}
    init.main(init.Config(str(tmp_path / "new"), feed=f"{web.url}/export.csv", **told))
    assert [h["X-Key"] for h in web.heads] == ["tok3n"]
    text = (tmp_path / "new" / "night.yaml").read_text()
    config = parse(nightly.Config, [f"{tmp_path}/new/night.yaml"], "w2w nightly")
    columns = {"product_id": "sku", "image": "picture"}
    assert (config.feed.uri, config.feed.columns) == (f"{web.url}/export.csv", columns)
    assert (config.feed.headers_env, config.fetch.allow_private_hosts) == (told["headers_env"], ("127.0.0.1",))
    assert "tok3n" not in text
    assert not (tmp_path / "new" / "store").exists()
    said = night(config.store, shop, vars(config.feed) | {"full": True}, fetch=LOCAL)
    assert (said.counts.out, web.heads[1]["X-Key"]) == (6, "tok3n")


def test_other_jobs_say_that_they_do_not_fetch():
    with pytest.raises(UsageError, match="fetched by w2w ingest and nightly alone"):
        check_feed(FeedConfig(uri="https://shop.example/a.csv"))
