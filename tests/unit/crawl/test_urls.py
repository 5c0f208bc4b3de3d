"""Canonical URLs and breadth limits."""

import pytest

from w2w.crawl.urls import Breadth, Limits, authority, canonical
from w2w.errors import UsageError

BASE = "http://shop.example/q/list?page=1"


@pytest.mark.parametrize(
    ("link", "url"),
    [
        ("HTTP://Shop.Example:80/a/../b/./c#top", "http://shop.example/b/c"),
        ("https://shop.example:443/", "https://shop.example/"),
        ("https://shop.example", "https://shop.example/"),
        ("http://shop.example:8080/x", "http://shop.example:8080/x"),
        ("/a%2fb%7e%e9%C3%A9", "http://shop.example/a%2Fb~%E9%C3%A9"),
        ("/ü?q=ü", "http://shop.example/%C3%BC?q=%C3%BC"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("?b=2&a=1&utm_source=x&gclid=1&fbclid=2&PHPSESSID=3", "http://shop.example/q/list?a=1&b=2"),
        ("?a=1&a=0&x&y=", "http://shop.example/q/list?a=0&a=1&x&y="),
        ("/a?q=a%20b+c", "http://shop.example/a?q=a%20b%20c"),
        ("/p/1;jsessionid=0A1B?utm_campaign=y", "http://shop.example/p/1"),
        ("//cdn.example/a b.jpg", "http://cdn.example/a%20b.jpg"),
        ("  /p/1\n", "http://shop.example/p/1"),
        ("www.other.example/p", "http://www.other.example/p"),
        ("shop.example/p", "http://shop.example/p"),
        ("page.html", "http://shop.example/q/page.html"),
        ("../p/1", "http://shop.example/p/1"),
        ("http://[2001:DB8::1]/", "http://[2001:db8::1]/"),
        ("http://shop.example./", "http://shop.example/"),
    ],
)
def test_one_spelling(link, url):
    assert canonical(link, BASE) == url
    assert canonical(url) == url


@pytest.mark.parametrize(
    "link",
    [
        "mailto:a@b",
        "javascript:void(0)",
        "",
        "#top",
        "ftp://h/",
        "file:///etc/passwd",
        "http://",
        "http://[::1",
        "http://a%00b/",
    ]
    + ["http://bob:pw@shop.example/", "http://h:99999/", "http://h:0/", "data:,x", "tel:+49", "http://a b/", "/" + "x" * 3000],
)
def test_no_url(link):
    assert canonical(link, BASE) is None


def test_link_without_a_scheme_names_a_host_where_there_is_no_base():
    assert canonical("shop.example/p?id=1") == "https://shop.example/p?id=1"
    assert canonical("page.html") is None


def test_authority_has_no_credentials():
    assert authority("http://bob:pw@Shop.Example:81/") == "shop.example:81"
    assert authority("http://[") == ""


def test_calendar_ends():
    breadth = Breadth(Limits(max_urls_per_pattern=12))
    refusals = [breadth.refusal(f"http://h/calendar/{2000 + i // 12}/{i % 12 + 1}", 1, 0) for i in range(100)]
    assert refusals[:12] == [""] * 12
    assert all("max_urls_per_pattern=12" in r for r in refusals[12:])


@pytest.mark.parametrize(
    ("limits", "url", "depth", "redirects", "word"),
    [
        (Limits(max_depth=2), "http://h/a", 3, 0, "max_depth=2"),
        (Limits(max_redirects=1), "http://h/a", 1, 2, "max_redirects=1"),
        (Limits(max_repeats=2), "http://h/a/b/a/b/a", 1, 0, "max_repeats=2"),
        (Limits(max_urls_per_host=1), "http://h/second", 1, 0, "max_urls_per_host=1"),
        (Limits(max_queries_per_path=1), "http://h/first?a=2", 1, 0, "max_queries_per_path=1"),
        (Limits(max_urls_below={"/first": 1}), "http://h/first/2", 1, 0, "max_urls_below"),
    ],
)
def test_limits_name_themselves(limits, url, depth, redirects, word):
    breadth = Breadth(limits)
    assert breadth.refusal("http://h/first?a=1", 0, 0) == ""
    assert word in breadth.refusal(url, depth, redirects)
    assert breadth.refusal("http://other/x", 0, 0) == ""


def test_negative_limits_are_refused():
    with pytest.raises(UsageError, match="max_depth"):
        Limits(max_depth=-1)
