"""What a place says of the use of a picture, whatever it sends, and what follows."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.web.servers import fetcher
from tests.unit.web.webs import Page, serve
from w2w.errors import Reject, UsageError
from w2w.web.answers import NoAi, Validators
from w2w.web.hosts import Hosts, rules_of
from w2w.web.permission import (
    UNREACHABLE,
    Asked,
    Headers,
    Rules,
    Statement,
    TdmFile,
    UseConfig,
    directives,
    judge,
    read_headers,
    signals_of,
)
from w2w.web.robots import Robots


def headers(**lines: str | list[str]) -> Headers:
    sent = {name.replace("_", "-").lower(): [line] if isinstance(line, str) else line for name, line in lines.items()}
    return read_headers(lambda name: sent.get(name.lower(), []), "w2w/1.0")


def may(said: Headers = Headers(), rules: Rules = Rules(), **use: str) -> tuple[bool, bool]:
    found = judge(Statement(said, rules, UseConfig(**use).told()))
    return found.search, found.training


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        (["noai, noimageai"], ["noai", "noimageai"]),
        (["NoAI"], ["noai"]),
        (["w2w: noai"], ["noai"]),
        (["*: noindex"], ["noindex"]),
        (["googlebot: noai, noindex"], []),
        (["googlebot: noai, w2w: noindex"], ["noindex"]),
        (["googlebot: noai", "none"], ["none"]),
        (["nofollow, max-snippet: 3, noimageindex"], ["noimageindex"]),
        (["unavailable_after: 2027-03-01, noai"], ["unavailable_after: 2027-03-01T00:00:00+00:00", "noai"]),
        (["unavailable_after: Mon, 01 Mar 2027 12:00:00 GMT, noai"], ["unavailable_after: 2027-03-01T12:00:00+00:00", "noai"]),
        (["unavailable_after: 01 Mar 27 15:00:00 PST"], ["unavailable_after: 2027-03-01T23:00:00+00:00"]),
        (["unavailable_after: never"], []),
        (["unavailable_after"], []),
        (["no ai", "noaiming", "", "max-image-preview=none", "max-image-preview: none"], []),
        (["noindex, noai;"], ["noindex", "noai"]),
        (["; noindex ;noai"], ["noindex", "noai"]),
        (["'noai', \"noindex\""], ["noai", "noindex"]),
        (['"w2w: noai"', "bot: noindex; noai"], ["noai"]),
        (["\x00noai\x7f\u202e", "noai noindex"], ["noai", "noindex"]),
        ([": noai", "noindex: true"], ["noai", "noindex"]),
        (["all"], ["all"]),
        (["index, follow", "bot: noai"], ["all"]),
        (["all, noai", "nofollow"], ["noai"]),
        (["bot: all", "nofollow"], []),
        (['"unavailable_after: 2027-03-01";'], ["unavailable_after: 2027-03-01T00:00:00+00:00"]),
        (['"' * 60_000 + "a" + '"' * 60_000], []),
        (["x" * 60_000 + ", noai"], ["noai"]),
        (["," * 60_000], []),
        (["a: " * 20_000], []),
    ],
)
def test_directives_of_robots_tags_that_matter(tags, found):
    assert directives(tags, "w2w/1.0 (+x)") == found


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["search=yes, ai-input=no, ai-train=no"], "search=yes, ai-input=no, ai-train=no"),
        (["AI-Train = NO"], "ai-train=no"),
        (["ai-train=yes", "ai-train=no"], "ai-train=no"),
        (["ai-train=no,ai-train=yes"], "ai-train=no"),
        (["search=maybe, ai-train=nope, xai-train=no, research=no"], ""),
        (["/private/ ai-train=no"], "ai-train=no"),
        (["\x00search=no\u2028"], "search=no"),
        (['search="no"', "ai-train = 'no' ;"], "search=no, ai-train=no"),
        (["\x01search\x01=\x7fno\x00; ai-train=no;"], "search=no, ai-train=no"),
        (["search" + '"' * 60_000], ""),
        (["ai-train=no" * 5000], ""),
        (["search=y" * 8000], ""),
        ([], ""),
    ],
)
def test_content_signals(values, found):
    assert signals_of(values) == found


def test_headers_are_spelled_our_way_and_short():
    said = headers(tdm_reservation=["0", "1"], tdm_policy=["javascript:x", "https://x.test/p\x1b[31m" + "y" * 9000])
    assert said == Headers(tdm_reservation="1", tdm_policy="")
    said = headers(tdm_reservation="true", tdm_policy="https://x.test/" + "y" * 9000)
    assert (said.tdm_reservation, len(said.tdm_policy)) == ("1", 300)
    assert headers(tdm_reservation=" 0 ").tdm_reservation == "0"
    assert headers(tdm_policy="https://user:secret@x.test/p").tdm_policy == ""
    assert headers() == Headers()


@pytest.mark.parametrize(
    ("sent", "verdict"),
    [
        ({}, (True, True)),
        ({"x_robots_tag": "noai"}, (False, False)),
        ({"x_robots_tag": "noimageai"}, (False, False)),
        ({"x_robots_tag": "noindex"}, (False, True)),
        ({"x_robots_tag": "noimageindex"}, (False, True)),
        ({"x_robots_tag": "none"}, (False, True)),
        ({"content_signal": "search=no"}, (False, True)),
        ({"content_signal": "ai-train=no"}, (True, False)),
        ({"content_signal": "ai-input=no"}, (True, True)),
        ({"tdm_reservation": "1"}, (True, False)),
        ({"tdm_reservation": "0"}, (True, True)),
        ({"tdm_reservation": "1", "content_signal": "ai-train=yes"}, (True, False)),
        ({"tdm_reservation": "0", "content_signal": "ai-train=no"}, (True, False)),
        ({"x_robots_tag": "noai", "content_signal": "search=yes, ai-train=yes"}, (False, False)),
    ],
)
def test_every_no_counts(sent, verdict):
    assert may(headers(**sent)) == verdict


def test_a_header_outweighs_a_file_of_the_host():
    assert may(Headers(content_signal="ai-train=yes"), Rules(robots_signal="search=no, ai-train=no")) == (False, True)
    assert may(Headers(tdm_reservation="0"), Rules(tdm_rule="1 https://x.test")) == (True, True)
    assert may(Headers(tdm_reservation="1"), Rules(tdm_rule="0")) == (True, False)
    assert may(rules=Rules(tdm_rule="1 https://x.test")) == (True, False)
    assert may(rules=Rules(robots_rule="*: disallow /")) == (False, False)
    assert may(rules=Rules(robots_rule="*: disallow / (listed)")) == (True, True)
    assert may(rules=Rules(UNREACHABLE, tdm_rule=UNREACHABLE)) == (True, True)


def test_the_owners_word_is_the_last():
    no = headers(x_robots_tag="noai, noindex", tdm_reservation="1")
    assert may(no, search="allowed", training="allowed") == (True, True)
    assert may(no, search="allowed") == (True, False)
    assert may(search="refused", training="refused") == (False, False)
    assert may(search="granted", training="granted") == (False, False)
    assert may(headers(content_signal="search=yes, ai-train=yes"), search="granted", training="granted") == (True, True)
    assert may(headers(tdm_reservation="0"), training="granted") == (True, True)
    assert may(headers(content_signal="ai-train=yes", tdm_reservation="1"), training="granted") == (True, False)
    ignored = Statement(headers(x_robots_tag="noai"), use=UseConfig().told(respect_no_ai=False))
    assert judge(ignored).training
    with pytest.raises(UsageError, match=r"use.training='yes': stated, granted, allowed or refused"):
        UseConfig(training="yes")


def test_a_verdict_says_why_and_until_when():
    found = judge(Statement(headers(x_robots_tag="unavailable_after: 2027-03-01"), Rules(robots_signal="ai-train=no")))
    assert (found.search, found.training) == (True, False)
    assert found.reason == "training: robots.txt: Content-Signal: ai-train=no"
    assert found.until == datetime(2027, 3, 1, tzinfo=UTC)
    said = judge(Statement(headers(x_robots_tag="noai"), use="search=allowed"))
    assert said.reason == "search: use.search=allowed. training: X-Robots-Tag: noai"


@pytest.mark.parametrize(
    ("rules", "target", "says"),
    [
        ([{"location": "/", "tdm-reservation": 1}], "/a.jpg", "1"),
        ([{"location": "/open/*", "tdm-reservation": 0}, {"location": "/", "tdm-reservation": 1}], "/open/a.jpg", "0"),
        ([{"location": "*.jpg$", "tdm-reservation": 1, "tdm-policy": "https://x.test/p"}], "/a.jpg", "1 https://x.test/p"),
        ([{"location": "*.jpg$", "tdm-reservation": 1}], "/a.jpg?x=1", ""),
        ([{"location": "/a", "tdm-reservation": 0}, {"location": "/a", "tdm-reservation": 1}], "/a", "1"),
        ([{"location": "/", "tdm-reservation": "1"}], "/", "1"),
        ([{"location": "/", "tdm-reservation": ' "1"; '}], "/", "1"),
        ([{"location": "/", "tdm-reservation": True}], "/", "1"),
        ([{"location": "/", "tdm-reservation": [1]}], "/", ""),
        ([{"location": "/", "tdm-reservation": 7}, {"tdm-reservation": 1}, 5, None, {"location": 3}], "/", ""),
        ({"location": "/", "tdm-reservation": 1}, "/", ""),
    ],
)
def test_tdm_files(rules, target, says):
    assert TdmFile(json.dumps(rules).encode()).says(target) == says


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xfe\x00", b"[" * 100_000, b'[{"location": "' + b"*" * 300_000])
def test_a_broken_tdm_file_says_nothing(body):
    assert TdmFile(body).says("/a") == ""


def test_many_stars_cost_little():
    file = TdmFile(json.dumps([{"location": "*a" * 900 + "$", "tdm-reservation": 1}] * 100).encode())
    assert file.says("/" + "a" * 1000) == "1"


def test_robots_groups_and_their_signals():
    text = "User-agent: w2w\nContent-Signal: ai-train=no\nDisallow: /p\n\nUser-agent: *\nContent-Signal: search=no\nAllow: /\n"
    robots = Robots(text)
    ours = rules_of("http://x.test/p/1", "w2w", robots, TdmFile(), listed=False)
    assert ours == Rules("w2w: disallow /p", "ai-train=no", "")
    assert ours.disallowed
    assert not rules_of("http://x.test/p/1", "w2w", robots, TdmFile(), listed=True).disallowed
    assert rules_of("http://x.test/p/1", "other", robots, None, listed=False) == Rules("*: allow /", "search=no", UNREACHABLE)


def test_what_cannot_be_asked_now_says_what_it_said():
    before = Statement(Headers(tdm_reservation="1"), Rules("*: allow /", "ai-train=no", "1"))
    assert before.after(Asked(None, None), "") == before
    assert before.after(Asked(None, Rules(UNREACHABLE, "", UNREACHABLE)), "") == before
    assert before.after(Asked(Headers(), Rules()), "") == Statement()
    assert Statement().after(Asked(None, Rules(UNREACHABLE)), "").rules == Rules(UNREACHABLE)
    assert Statement.from_json(before.to_json()) == before
    assert Statement.from_json(None) == Statement()
    for asked in (Asked(), Asked(Headers("noai"), None, partly=True), Asked(None, Rules("*: allow /"))):
        assert Asked.from_json(asked.to_json()) == asked


def test_a_304_takes_back_only_what_it_speaks_of():
    before = Statement(Headers("noai", "search=no", "1", "https://x.test/p"))
    for sent, now in (
        ({}, before.headers),
        ({"x_robots_tag": "all"}, replace(before.headers, robots_tag="all")),
        ({"x_robots_tag": "bot: all"}, before.headers),
        ({"tdm_reservation": "0"}, replace(before.headers, tdm_reservation="0", tdm_policy="")),
        ({"content_signal": "search=yes"}, replace(before.headers, content_signal="search=yes")),
    ):
        assert before.after(Asked(headers(**sent), None, partly=True), "").headers == now
    assert before.after(Asked(headers(x_robots_tag="all"), None), "").headers == Headers("all")
    assert may(Headers("all")) == (True, True)


def test_a_host_is_asked_once_and_again_after_a_failure():
    files = {"/robots.txt": Page(b"User-agent: *\nContent-Signal: ai-train=no\n"), "/.well-known/tdmrep.json": Page(status=503)}
    now = [0.0]
    with serve(files) as web:
        hosts, one = Hosts("w2w", lambda: now[0]), fetcher(retries=0)
        for _ in range(3):
            assert hosts.rules(f"{web.url}/a.jpg", one.get_bytes) == Rules("", "ai-train=no", UNREACHABLE)
        assert web.paths() == list(files)
        web.pages["/.well-known/tdmrep.json"] = Page(b'[{"location": "/a", "tdm-reservation": 1}]')
        now[0] = 3601.0
        assert hosts.rules(f"{web.url}/a.jpg", one.get_bytes).tdm_rule == "1"
        assert hosts.rules(f"{web.url}/b.jpg", one.get_bytes).tdm_rule == ""
        assert len(web.paths()) == 4


def test_answers_carry_what_their_headers_say():
    sent = {"X-Robots-Tag": "noindex", "TDM-Reservation": "1", "ETag": '"1"'}
    with serve({"/a": Page(headers=sent), "/no": Page(headers={"X-Robots-Tag": "noai", "Content-Signal": "search=no"})}) as web:
        said = Headers("noindex", "", "1", "")
        assert fetcher().get(f"{web.url}/a").said == said
        assert fetcher().get(f"{web.url}/a", Validators('"1"')).said == said
        with pytest.raises(NoAi) as refused:
            fetcher().get(f"{web.url}/no")
        assert refused.value.said == Headers("noai", "search=no")
        assert isinstance(refused.value, Reject)
        assert fetcher(respect_no_ai=False).get(f"{web.url}/no").said.robots_tag == "noai"


words = st.sampled_from(["noai", "noindex", "none", "w2w", "bot", "search", "ai-train", "yes", "no", *"*:,= 10"])
headers_of_strangers = st.lists(st.lists(st.one_of(words, st.text(max_size=8)), max_size=30).map("".join), max_size=4)


@given(headers_of_strangers, headers_of_strangers, headers_of_strangers, headers_of_strangers, st.text(max_size=300))
def test_whatever_is_sent_is_read_and_only_our_words_travel_further(tags, signals, tdm, policies, robots):
    said = headers(x_robots_tag=tags, content_signal=signals, tdm_reservation=tdm, tdm_policy=policies)
    rules = rules_of("http://x.test/a b", "w2w", Robots(robots), TdmFile(robots.encode("utf-8", "replace")), listed=False)
    statement = Statement(said, rules)
    for text in (*vars(said).values(), *vars(rules).values(), judge(statement).reason):
        assert text.isascii()
        assert text.isprintable()
        assert len(text) <= 600
    assert Statement.from_json(statement.to_json()) == statement
    assert not any(tag.split(", ")[0].strip().lower() == "noai" for tag in tags if "," in tag) or not judge(statement).training
