"""Site profiles: what they say, and a sentence for every mistake."""

from pathlib import Path

import pytest

from w2w.crawl.profile import Field, Kind, Profile, Rule, read_profile
from w2w.errors import UsageError

ROOT = Path(__file__).parents[3]
GOOD = """
name: shop
start: [http://h/shop]
rules: [{match: '/p/', kind: product}, {match: '/shop'}]
kinds: {product: {record: product, fields: {title: {css: h1}}}}
"""


def read(tmp_path, text: str) -> Profile:
    (tmp_path / "p.yaml").write_text(text)
    return read_profile(str(tmp_path / "p.yaml"))


def test_reads_yaml(tmp_path):
    profile = read(tmp_path, GOOD)
    assert profile.kinds == {"product": Kind(record="product", fields={"title": Field(css="h1")})}
    assert profile.kind_of("http://h/p/1") == "product"
    assert profile.kind_of("http://h/shop?page=2") == "page"
    assert profile.kind_of("http://h/about") is None


@pytest.mark.parametrize("name", ["shop", "community"])
def test_examples_are_valid(name):
    profile = read_profile(str(ROOT / "jobs" / "examples" / f"profile-{name}.yaml"))
    assert list(profile.starts())


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("name: shop", "", "name"),
        ("name: shop", "name: 'a/b'", "letters, digits"),
        ("name: shop", "nam: shop", "Did you mean 'name'"),
        ("start: [http://h/shop]", "", "nowhere to start"),
        ("http://h/shop", "ftp://h/", "is not an http or https URL"),
        ("kind: product", "kind: produkt", "kind 'produkt' is not one of"),
        ("'/p/'", "'(/p/'", "not a regular expression"),
        ("record: product", "record: thing", "must be one of none, product, post"),
        ("css: h1", "css: 'h1['", "not a CSS selector"),
        ("css: h1", "pattern: x", "has a css selector"),
        ("record: product, fields", "fields", "record=none"),
        ("record: product", "record: post", "the fields of a post are"),
        ("kinds: {product", "kinds: {image: {}, product", "built into every profile"),
        ("start:", "numbered: [{url: 'http://h/x'}]\nstart:", "with {n} in it"),
        ("start:", "numbered: [{url: 'http://h/{m}'}]\nstart:", "write {n} in place"),
        ("start:", "numbered: [{url: 'http://h/{n}', first: 5, last: 1}]\nstart:", "give no range"),
    ],
)
def test_mistakes_are_named(tmp_path, old, new, words):
    assert old in GOOD
    with pytest.raises(UsageError, match=words.replace("{", r"\{").replace("[", r"\[")):
        read(tmp_path, GOOD.replace(old, new, 1))


def test_missing_file_names_the_option():
    with pytest.raises(UsageError, match="--profile=nowhere"):
        read_profile("nowhere.yaml")


def test_no_password_of_a_url_in_a_message(tmp_path):
    with pytest.raises(UsageError, match="without a user name") as caught:
        read(tmp_path, GOOD.replace("http://h/shop", "'http://bob:hunter2@h/shop?key=secret'"))
    assert "hunter2" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_starts_count_and_pad(tmp_path):
    numbers = "numbered: [{url: 'http://h/post/{n:03d}', first: 8, last: 12, step: 2}]\nrobots_sitemaps: true\nstart:"
    starts = list(read(tmp_path, GOOD.replace("start:", numbers)).starts())
    assert [url for url, _ in starts[1:4]] == ["http://h/post/008", "http://h/post/010", "http://h/post/012"]
    assert starts[-1] == ("http://h/robots.txt", "robots")


def test_hosts_of_the_start_unless_named():
    profile = Profile("x", start=["http://h:81/"])
    assert profile.follows("http://h:81/a", "page")
    assert not profile.follows("http://h/a", "page")
    assert profile.follows("http://cdn/a.jpg", "image")
    named = Profile("x", start=["http://a/"], hosts=["*.shop.example", "B"], image_hosts=["cdn.example"])
    assert named.follows("http://eu.shop.example:8080/", "page")
    assert named.follows("http://b/", "page")
    assert not named.follows("http://a/", "page")
    assert not named.follows("http://evilshop.example/", "page")
    assert not named.follows("http://other/a.jpg", "image")


def test_version_changes_with_what_is_read_and_not_with_where_it_begins():
    one = Profile("x", start=["http://a/"], hosts=["a"])
    assert one.version() == Profile("x", start=["http://a/b"], hosts=["a"]).version()
    assert one.version() != Profile("x", start=["http://a/"], hosts=["a"], rules=[Rule("p")]).version()
