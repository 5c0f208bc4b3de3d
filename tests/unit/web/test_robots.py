"""robots.txt: what is allowed, what a missing one means, and who asks for it."""

import pytest

from w2w.errors import Reject, RejectCode
from w2w.web.answers import Validators
from w2w.web.doorkeeper import Doorkeeper, Message
from w2w.web.politeness import PolitenessConfig
from w2w.web.robots import MAX_BYTES, Robots, RobotsShelf, from_json, read_robots, robots_after, robots_url, to_json

TEXT = b"""User-agent: *
Disallow: /account/
Allow: /account/help
Disallow: /*sort=
Crawl-delay: 2.5
Sitemap: https://h/sitemap.xml
User-agent: greedybot
Disallow: /
"""


@pytest.mark.parametrize(
    ("path", "agent", "allowed"),
    [
        ("/", "w2w", True),
        ("/account/x", "w2w", False),
        ("/account/help", "w2w", True),
        ("/shop?page=1&sort=price", "w2w", False),
        ("/", "greedybot", False),
    ],
)
def test_longest_rule_decides(path, agent, allowed):
    refusal = read_robots(TEXT).check(f"https://h{path}", agent)
    assert (refusal is None) == allowed
    assert allowed or refusal.code == RejectCode.DISALLOWED


def test_delay_and_sitemaps():
    robots = read_robots(b"\xef\xbb\xbf" + TEXT)
    assert robots.crawl_delay_s("w2w") == 2.5
    assert robots.sitemaps() == ["https://h/sitemap.xml"]
    assert read_robots(b"User-agent: *\nRequest-rate: 1/10").crawl_delay_s("w2w") == 10.0
    assert read_robots(b"\xff\xfe\x00garbage\n<html>").check("https://h/", "w2w") is None


def test_only_the_first_500_kib_are_read():
    late = b"#" * MAX_BYTES + b"\nUser-agent: *\nDisallow: /\n"
    assert read_robots(late).check("https://h/x", "w2w") is None


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (Reject(RejectCode.NOT_FOUND, "HTTP 404"), None),
        (Reject(RejectCode.FORBIDDEN, "HTTP 403"), None),
        (Reject(RejectCode.FETCH_FAILED, "https://h/robots.txt: HTTP 451"), None),
        (Reject(RejectCode.FETCH_FAILED, "https://h/robots.txt: HTTP 503 (3 attempts)"), RejectCode.ROBOTS_UNREACHABLE),
        (Reject(RejectCode.FETCH_FAILED, "connection failed (3 attempts)"), RejectCode.ROBOTS_UNREACHABLE),
        (Reject(RejectCode.TOO_SLOW, "not done after 4 s"), RejectCode.ROBOTS_UNREACHABLE),
        (Reject(RejectCode.BLOCKED_URL, "10.0.0.1 is not public"), RejectCode.BLOCKED_URL),
    ],
)
def test_4xx_allows_all_and_everything_else_nothing(failure, code):
    refusal = robots_after(failure).check("https://h/x", "w2w")
    assert (refusal and refusal.code) == code


def test_robots_url_is_of_the_origin():
    assert robots_url("https://Bob:pw@Shop.example:8443/a/b?c") == "https://shop.example:8443/robots.txt"


def test_one_worker_asks_and_a_dead_one_is_replaced():
    now = [0.0]
    shelf = RobotsShelf(lambda: now[0])
    assert shelf.is_your_turn("r")
    assert not shelf.is_your_turn("r")
    now[0] = 200.0
    assert shelf.is_your_turn("r")
    shelf.put("r", Robots("x"))
    assert shelf.take("r") == Robots("x")
    now[0] += 24 * 3600
    assert shelf.take("r") is None
    shelf.put("r", Robots(refusal=(RejectCode.ROBOTS_UNREACHABLE, "down")))
    now[0] += 301  # out of reach is asked again sooner
    assert shelf.take("r") is None


def test_crawl_delay_reaches_politeness():
    now = [0.0]
    keeper = Doorkeeper(PolitenessConfig(requests_per_s=None), "w2w", 60.0, lambda: now[0])
    where = "https://h/robots.txt"
    assert keeper.exchange(Message(robots_wanted=(where,))).robots_to_fetch == {where: None}
    waiting = keeper.exchange(Message(robots_wanted=(where,)))
    assert waiting.robots_to_fetch == {}
    assert waiting.wait_s > 0
    reply = keeper.exchange(Message(robots_found={where: read_robots(TEXT)}, robots_wanted=(where,), wanted={"h": 5}))
    assert reply.robots[where].text
    assert [lease.requests for lease in reply.leases] == [1]
    assert keeper.exchange(Message(wanted={"h": 1})).wait_s == 2.5
    assert keeper.intervals_s(["h", "other"]) == {"h": 2.5, "other": 0.0}


def test_rules_are_remembered_from_run_to_run():
    known = {
        "a": Robots("x", validators=Validators('"1"', None)),
        "b": Robots("no validators"),
        "c": Robots(refusal=(RejectCode.TOO_SLOW, "x"), validators=Validators('"2"')),
        "d": Robots("long" * 20_000, validators=Validators('"3"')),
    }
    assert from_json(to_json(known)) == {"a": known["a"]}
    assert [from_json(text) for text in (b"", b"[]", b'{"a": 1}', b'{"a": {"x": 1}}', b"\xff")] == [{}] * 5
    shelf = RobotsShelf(lambda: 0.0, {"a": known["a"]})
    assert shelf.take("a") is None  # remembered is not known: it has to be asked for
    assert shelf.before("a") == known["a"]
    shelf.put("a", Robots(refusal=(RejectCode.TOO_SLOW, "down")))
    assert shelf.remembered() == {"a": known["a"]}
