"""Rules of robots.txt: groups, names, paths (RFC 9309). Cases are ours; what google/robotstxt tests was tried beside them."""

import pytest

from w2w.web.robots import read_robots
from w2w.web.robotstxt import Rules, product_token


def allowed(text: str, target: str, agent: str = "w2w/1.0 (+https://us.example)") -> bool:
    return Rules(text).allows(target, agent)


@pytest.mark.parametrize(
    "between", ["Noindex: /x", "Sitemap: https://h/s.xml", "Crawl-delay: 5", "", "# nothing", "Host: h", "nonsense", "Allow"]
)
def test_only_a_path_ends_the_names_of_a_group(between):
    text = f"User-agent: w2w\n{between}\nUser-agent: *\nDisallow: /\n"
    assert not allowed(text, "/a")
    assert not allowed(text, "/a", "other")


@pytest.mark.parametrize("path", ["Disallow: /x", "Allow: /x", "Disallow:"])
def test_a_path_ends_them(path):
    assert allowed(f"User-agent: w2w\n{path}\nUser-agent: *\nDisallow: /\n", "/a")


def test_groups_of_one_name_are_one():
    text = "User-agent: w2w\nDisallow: /a\n\nUser-agent: *\nDisallow: /\n\nUser-agent: W2W\nDisallow: /b\n"
    assert [allowed(text, path) for path in ("/a", "/b", "/c")] == [False, False, True]


@pytest.mark.parametrize(
    ("line", "agent", "meant"),
    [
        ("w2w", "w2w", True),
        ("W2W/2.1", "w2w", True),
        ("w2w", "W2W/1.0 (research)", True),
        ("w2w crawler", "w2w", True),
        ("w2", "w2w", False),
        ("w2w-images", "w2w", False),
        ("w2w", "w2w-images", False),
        ("w", "w2w", False),
        ("Mozilla/5.0 (compatible; w2w)", "w2w", False),
        ("", "w2w", False),
        ("* # all", "w2w", True),
        ("*bot", "w2w", False),
    ],
)
def test_a_name_is_matched_whole_without_version(line, agent, meant):
    assert allowed(f"User-agent: {line}\nDisallow: /\n", "/a", agent) != meant


def test_product_token():
    assert [product_token(name) for name in ("My-Bot_2/1.0", " x", "", "ツ")] == ["My-Bot_2", "", "", ""]


@pytest.mark.parametrize(
    ("rules", "target", "expected"),
    [
        ("Disallow: /*?sort=", "/list?sort=price&page=2", False),
        ("Disallow: /*?sort=", "/list?page=2&sort=price", True),
        ("Disallow: /a\nAllow: /a", "/a", True),
        ("Disallow: /a/b\nAllow: /a", "/a/b", False),
        ("Disallow: /\nAllow: /$", "/", True),
        ("Disallow: /\nAllow: /$", "/a", False),
        ("Disallow: /*.pdf$", "/a/b.pdf", False),
        ("Disallow: /*.pdf$", "/a.pdf?x", True),
        ("Disallow: /a*b*c", "/a1b2c3", False),
        ("Disallow: /a*b*c$", "/abcbc", False),
        ("Disallow: /a*b*c$", "/ac", True),
        ("Disallow: /ab*b$", "/ab", True),
        ("Disallow: /*?", "/a?", False),
        ("Disallow: /*?", "/a", True),
        ("Disallow: /caf\u00e9", "/caf%C3%A9/x", False),
        ("Disallow: /caf%c3%a9", "/caf%C3%A9", False),
        ("Disallow: /%61", "/a", False),
        ("Disallow: /a%2Fb", "/a/b", True),
        ("Disallow: /a%2Ab", "/a*b", False),
        ("Disallow: /a%2Ab", "/a1b", True),
        ("Disallow: /a$b", "/a$b", False),
        ("Disallow: /a b", "/a%20b", False),
        ("Disallow: a", "/a", True),
        ("Disallow: *", "/a", False),
        ("Disallow:", "/a", True),
        ("Disallow: /a # why", "/a", False),
        ("disallow : /a", "/a", False),
        ("DisAllow:/a", "/a", False),
        ("Dissallow: /a", "/a", False),
        ("Disallow /a", "/a", False),
        ("Disallow: /a\u2028Disallow: /b", "/b", True),
        ("Disallow: /A", "/a", True),
    ],
)
def test_paths(rules, target, expected):
    assert allowed(f"User-agent: *\n{rules}\n", target) == expected


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_ends_of_lines_and_a_mark(end):
    assert not allowed(end.join(["\ufeffUser-agent: *", "Disallow: /a", ""]), "/a")


def test_rules_outside_a_group_are_none():
    assert allowed("Disallow: /\nUser-agent: *\nDisallow: /b\n", "/a")


def test_delays():
    def delay(lines: str) -> float:
        return Rules(f"User-agent: *\n{lines}\n").delay_s("w2w")

    assert [delay(line) for line in ("Crawl-delay: 2.5", "Request-rate: 1/10", "Request-rate: 2/1m 0600-0845")] == [2.5, 10, 30]
    assert [delay(line) for line in ("Crawl-delay: soon", "Crawl-delay: -1", "Request-rate: 0/5", "Crawl-delay: 1e9")] == [
        0,
        0,
        0,
        1,
    ]
    assert Rules("User-agent: w2w\nCrawl-delay: 7\nDisallow: /x\nUser-agent: *\nCrawl-delay: 1").delay_s("w2w") == 7


def test_stars_cost_no_time():
    pattern, target = "/" + "*a" * 1000 + "$", "/" + "a" * 1999 + "b"
    assert allowed(f"User-agent: *\nDisallow: {pattern}\n", target)


def test_utf_16_is_read_too():
    body = "User-agent: *\nDisallow: /a\n".encode("utf-16")
    assert read_robots(body).check("https://h/a", "w2w")


def test_the_url_is_asked_as_it_is_published():
    robots = read_robots(b"User-agent: *\nDisallow: /*?sort=\n")
    assert robots.check("https://h/list?sort=price&page=2", "w2w")
    assert robots.check("https://h/list?page=2&sort=price", "w2w") is None
