"""Canonical URLs and breadth limits."""

import pytest

from w2w.errors import UsageError
from w2w.web.urls import Breadth, Limits, authority, canonical, resolve, target_of, tracking_pattern

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
    ("link", "url"),
    [
        ("/list?sort=price&page=2", "http://shop.example/list?sort=price&page=2"),
        ("/pr?sid=A&utm_source=x&x=%e9'|", "http://shop.example/pr?sid=A&utm_source=x&x=%e9'|"),
        ("/a%2fb/%7Eme;jsessionid=1", "http://shop.example/a%2fb/%7Eme;jsessionid=1"),
        ("/a/%2e%2E/b?", "http://shop.example/b?"),
        ("/a//b/../c", "http://shop.example/a//c"),
        ("\\\\cdn.example\\a\\b?c\\d", "http://cdn.example/a/b?c\\d"),
        ("/a\\b", "http://shop.example/a/b"),
        ("http:\\\\cdn.example/a", "http://cdn.example/a"),
        ("http:p/1", "http://shop.example/q/p/1"),
        ("https:p/1", "https://p/1"),
        ("http:///cdn.example/a", "http://cdn.example/a"),
        ("///cdn.example/a", "http://cdn.example/a"),
        ("?", "http://shop.example/q/list?"),
        ("/p\t/\n1#x?y", "http://shop.example/p/1"),
        ("http://fa\u00df.example/", "http://xn--fa-hia.example/"),
        ("http://\u0645\u062b\u0627\u0644.example/", "http://xn--mgbh0fb.example/"),
        ("http://\u2764.example\u3002/", "http://xn--qei.example/"),
        ("http://SH%4fP.example/", "http://shop.example/"),
        ("http://[2001:DB8:0:0::1]:080/", "http://[2001:db8::1]/"),
    ],
)
def test_what_is_asked_for_is_what_is_published(link, url):
    assert resolve(link, BASE) == url
    assert resolve(url) == url
    assert canonical(url) == canonical(link, BASE)


def test_a_shop_may_name_a_product_by_sid():
    assert canonical("/pr?sid=A&x=1", BASE) != canonical("/pr?sid=B&x=1", BASE)


def test_tracking_is_a_list_of_names():
    is_tracking = tracking_pattern(["utm_*", "ref"])
    assert [bool(is_tracking(name)) for name in ("UTM_source", "ref", "refs", "gclid")] == [True, True, False, False]
    assert canonical("/a?ref=x&gclid=1", BASE, is_tracking) == "http://shop.example/a?gclid=1"
    assert not tracking_pattern([])("utm_source")


def test_target():
    assert [target_of(u) for u in ("http://h", "http://h/a?", "http://h:1/a?b=c?d")] == ["/", "/a?", "/a?b=c?d"]


@pytest.mark.parametrize(
    "link",
    ["http://xn--\u0161.example/", "http://a_b%2f.example/", "http://[::1%25eth0]/", "http://h:1000000080/", "http://./"]
    + [
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
