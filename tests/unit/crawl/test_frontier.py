"""What is asked next, and what a level of pages lets in."""

import random

import numpy as np
import pyarrow as pa
import pytest

from w2w import schema
from w2w.crawl import frontier
from w2w.crawl.frontier import CANDIDATE_SCHEMA, LAST_VISIT_COLUMNS, VISIT_SCHEMA, RecrawlConfig, State
from w2w.crawl.profile import Kind, Profile, Rule
from w2w.errors import RejectCode, UsageError
from w2w.web.urls import Breadth, Limits

S = 1_000_000
NOW = 1_700_000_000 * S
SITE = Profile("x", start=["http://h/"])


class Seen:
    def __init__(self):
        self._ids = set()

    def __call__(self, ids: pa.Array) -> np.ndarray:
        new = [i not in self._ids for i in ids.to_pylist()]
        self._ids |= set(ids.to_pylist())
        return np.array(new, bool)


def candidates(*rows: tuple) -> pa.Table:
    names = CANDIDATE_SCHEMA.names
    return pa.Table.from_pylist([dict(zip(names, r)) for r in rows], schema=CANDIDATE_SCHEMA)


def known(*urls: tuple[str, int]) -> pa.Table:
    rows = candidates(*((url, "page", depth, 0, None) for url, depth in urls))
    return frontier.admit(rows, SITE, Seen(), Breadth(Limits()), NOW)


def visits(**by_url: dict) -> pa.Table:
    base = {"visit": 0, "state": "fetched", "reason": "ok", "failures": 0, "unchanged": 0, "read_by": "v", "etag": '"e"'}
    rows = [{"url_id": frontier.url_id(url), "fetched_at": NOW} | base | values for url, values in by_url.items()]
    kinds = schema.PAGES.fields(LAST_VISIT_COLUMNS)
    return pa.Table.from_pylist(rows, schema=pa.schema([f.with_nullable(True) for f in kinds]))


def due(rows: pa.Table, last: pa.Table, seconds: float = 0.0, read_by: str = "v", **config) -> pa.Table:
    return frontier.due(rows, last, NOW + int(seconds * S), RecrawlConfig(**config), read_by)


def urls(table: pa.Table) -> list[str]:
    return table.column("url").to_pylist()


def test_new_urls_are_due_least_depth_first():
    rows = known(("http://h/c", 2), ("http://h/b", 1), ("http://h/a", 1))
    work = due(rows, visits())
    assert work.schema == VISIT_SCHEMA
    assert urls(work) == ["http://h/a", "http://h/b", "http://h/c"]
    assert work.column("visit").to_pylist() == [0, 0, 0]
    assert urls(frontier.level(work)) == ["http://h/a", "http://h/b"]
    assert frontier.level(work.slice(0, 0)).num_rows == 0
    assert due(rows.slice(0, 0), visits()).num_rows == 0


def test_hosts_take_turns():
    rows = known(*((f"http://{host}/{i}", 0) for host in "ab" for i in range(3)), ("http://c/0", 0))
    assert [u[7] for u in urls(due(rows, visits()))] == ["a", "b", "c", "a", "b", "a", "b"]


@pytest.mark.parametrize(
    ("last", "seconds", "is_due"),
    [
        ({}, 99, False),
        ({}, 100, True),
        ({"unchanged": 2}, 399, False),
        ({"unchanged": 2}, 400, True),
        ({"unchanged": 99}, 1000, True),  # at_most_s
        ({"state": "failed", "failures": 1}, 9, False),
        ({"state": "failed", "failures": 1}, 10, True),
        ({"state": "failed", "failures": 3}, 39, False),
        ({"state": "failed", "failures": 3}, 40, True),
        ({"state": "failed", "failures": 1, "not_before": NOW + 500 * S}, 499, False),
        ({"state": "failed", "failures": 1, "not_before": NOW + 500 * S}, 500, True),
        ({"state": "given_up", "failures": 5}, 1e9, False),
        ({"state": "gone"}, 100, True),
        ({"state": "excluded"}, 100, True),
    ],
)
def test_when_a_url_is_asked_again(last, seconds, is_due):
    work = due(known(("u", 0)), visits(u=last), seconds, after_s=100.0, at_most_s=1000.0, retry_after_s=10.0)
    assert work.num_rows == is_due
    if is_due:
        assert work.column("visit").to_pylist() == [1]
        assert work.column("key").to_pylist() == [frontier.url_id("u") + "@1"]
        assert work.column("etag").to_pylist() == ['"e"']


def test_longest_waiting_first():
    last = visits(a={"fetched_at": NOW - 10 * S}, b={"fetched_at": NOW - 30 * S}, c={"fetched_at": NOW - 20 * S})
    assert urls(due(known(("a", 0), ("b", 0), ("c", 0)), last, after_s=5.0)) == ["b", "c", "a"]


def test_another_profile_reads_pages_again_and_images_not():
    rows = frontier.admit(
        candidates(("p", "page", 0, 0, None), ("i", "image", 0, 0, None)), SITE, Seen(), Breadth(Limits()), NOW
    )
    work = due(rows, visits(p={}, i={}), 1e6, read_by="other")
    assert dict(zip(urls(work), work.column("etag").to_pylist())) == {"p": None, "i": '"e"'}


def test_a_mended_profile_gives_new_kinds_except_to_images():
    rows = candidates(
        ("http://h/p/1", "page", 0, 0, None), ("http://h/p/1.jpg", "image", 0, 0, None), ("http://h/x", "old", 0, 0, None)
    )
    work = due(frontier.admit(rows, SITE, Seen(), Breadth(Limits()), NOW), visits())
    profile = Profile("x", start=["http://h/"], rules=[Rule("/p/", "product")], kinds={"product": Kind("product")})
    now = frontier.with_kinds(work, profile)
    assert now.schema == work.schema
    assert dict(zip(urls(now), now.column("kind").to_pylist())) == {
        "http://h/p/1": "product",
        "http://h/p/1.jpg": "image",
        "http://h/x": "old",
    }


def test_newest_visit_counts():
    table = visits(a={"visit": 1, "reason": "new"}, b={})
    table = pa.concat_tables([visits(a={"visit": 0}), table])
    assert frontier.newest(table).num_rows == 2
    assert "new" in frontier.newest(table).column("reason").to_pylist()
    assert frontier.newest(table.slice(0, 1)).num_rows == 1


def test_links_of_pages_and_redirects():
    rows = [
        {
            "url": "a",
            "depth": 1,
            "redirects": 0,
            "state": "fetched",
            "links": [{"url": "b", "kind": "page"}, {"url": "c", "kind": "p"}],
        },
        {"url": "m", "depth": 2, "redirects": 3, "state": "redirected", "links": [{"url": "n", "kind": "page"}]},
        {"url": "e", "depth": 2, "redirects": 3, "state": "fetched", "links": []},
    ]
    names = ["url", "depth", "redirects", "state", "links"]
    found = frontier.links_of(pa.Table.from_pylist(rows, schema=schema.PAGES.fields(names)))
    assert found.schema == CANDIDATE_SCHEMA
    assert [tuple(row.values()) for row in found.to_pylist()] == [
        ("b", "page", 2, 0, "a"),
        ("c", "p", 2, 0, "a"),
        ("n", "page", 3, 4, "m"),
    ]


def test_admission_does_not_depend_on_order_and_happens_once():
    rng, rows = random.Random(2), [(f"http://h/{i % 40}", "page", 1 + i % 3, 0, f"on{i % 7}") for i in range(200)]
    results = []
    for _ in range(3):
        rng.shuffle(rows)
        seen, breadth = Seen(), Breadth(Limits(max_urls_per_host=25))
        admitted = frontier.admit(candidates(*rows), SITE, seen, breadth, NOW)
        results.append(sorted(map(str, admitted.to_pylist())))
        assert frontier.admit(candidates(*rows), SITE, seen, breadth, NOW).num_rows == 0
    assert results[0] == results[1] == results[2]
    states = admitted.column("state").to_pylist()
    assert (states.count("queued"), states.count("excluded")) == (25, 15)
    assert set(admitted.column("reason").to_pylist()) == {"", "over_limit"}


def test_one_page_is_let_in_once_by_the_url_found_first_and_known_by_its_canonical_one():
    spelled = ["http://h/a?b=2&a=1&utm_source=x", "http://h/a?b=2&a=1", "http://h/a?a=1&b=2"]
    rows = candidates(*((url, "page", depth, 0, None) for depth, url in enumerate(spelled, start=1)))
    admitted = frontier.admit(rows, SITE, Seen(), Breadth(Limits()), NOW).to_pylist()
    assert [row["url"] for row in admitted] == spelled[:1]
    assert admitted[0]["url_id"] == frontier.url_id(spelled[2])  # what older stores know it by
    together = candidates(*((url, "page", 1, 0, None) for url in spelled))
    (row,) = frontier.admit(together, SITE, Seen(), Breadth(Limits()), NOW).to_pylist()
    assert row["url"] == spelled[2]  # of the shortest the first
    theirs = Profile("x", start=["http://h/"], tracking=["a"])
    assert frontier.admit(rows, theirs, Seen(), Breadth(Limits()), NOW).num_rows == 2


def test_counts_go_on_after_a_restart():
    limits = Limits(max_urls_per_host=2)
    first = frontier.admit(candidates(("http://h/1", "page", 1, 0, "a")), SITE, Seen(), Breadth(limits), NOW)
    breadth = Breadth(limits)
    frontier.recount(first, breadth)
    more = frontier.admit(candidates(*((f"http://h/{i}", "page", 1, 0, "a") for i in (2, 3))), SITE, Seen(), breadth, NOW)
    assert more.column("state").to_pylist() == ["queued", "excluded"]


def test_images_are_not_counted_and_starts_always_let_in():
    breadth = Breadth(Limits(max_urls_per_host=0, max_depth=5))
    rows = frontier.starts([("http://h/s", "page"), ("http://h/s", "page")])
    assert rows.select(["depth", "redirects"]).to_pylist() == [{"depth": 0, "redirects": 0}]
    more = candidates(("http://h/i", "image", 3, 0, "s"), ("http://h/j", "image", 6, 0, "s"), ("http://h/p", "page", 1, 0, "s"))
    admitted = frontier.admit(pa.concat_tables([rows, more]), SITE, Seen(), breadth, NOW)
    states = dict(zip(urls(admitted), admitted.column("state").to_pylist()))
    assert states == {"http://h/s": "queued", "http://h/i": "queued", "http://h/j": "excluded", "http://h/p": "excluded"}


def test_every_reject_code_has_a_state():
    assert frontier.state_after(RejectCode.NOT_FOUND, 0, 5) == State.GONE
    assert frontier.state_after(RejectCode.TOO_SLOW, 4, 5) == State.FAILED
    assert frontier.state_after(RejectCode.TOO_SLOW, 5, 5) == State.GIVEN_UP
    assert frontier.state_after(RejectCode.TRUNCATED, 9, 5) == State.REJECTED
    assert all(frontier.state_after(code, 0, 5) in State for code in RejectCode)


@pytest.mark.parametrize("settings", [{"after_s": -1}, {"retry_after_s": -1}, {"give_up_after": 0}])
def test_bad_settings_name_themselves(settings):
    with pytest.raises(UsageError, match=next(iter(settings))):
        RecrawlConfig(**settings)
