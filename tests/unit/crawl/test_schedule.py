"""Many URLs from one or several workers, each in its turn."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.unit.web.servers import LOCAL, fetcher
from tests.unit.web.webs import Page, serve
from w2w.crawl.schedule import Question, ask_all
from w2w.errors import Reject, RejectCode, UsageError
from w2w.web.answers import Redirect, Response, TryLater
from w2w.web.doorkeeper import Doorkeeper
from w2w.web.fetch import FetchConfig, Fetcher
from w2w.web.politeness import PolitenessConfig
from w2w.web.robots import Robots

ROBOTS = {"/robots.txt": Page(b"User-agent: *\nDisallow: /no\n", headers={"Content-Type": "text/plain"})}


class Exchange:
    """A doorkeeper shared by threads, that counts its calls."""

    def __init__(self, **settings):
        self._keeper, self._lock, self.calls = Doorkeeper(PolitenessConfig(**settings), "w2w", 60.0), threading.Lock(), 0

    def __call__(self, message):
        with self._lock:
            self.calls += 1
            return self._keeper.exchange(message)


def ask(paths, web, exchange=None, threads=8, max_wait_s=5.0, retries=2, **settings):
    exchange = exchange or Exchange(**{"requests_per_s": None, "max_wait_s": max_wait_s, **settings})
    questions = [p if isinstance(p, Question) else Question(web.url + p) for p in paths]
    return ask_all(questions, fetcher(retries=retries), exchange, threads, max_wait_s)


def codes(answers):
    return [a.result.code if isinstance(a.result, Reject) else type(a.result) for a in answers]


def test_answers_stand_in_the_order_of_the_questions():
    pages = ROBOTS | {f"/{i}": Page(str(i).encode(), seconds=0.02 * (i % 3)) for i in range(30)}
    with serve(pages) as web:
        answers = ask([f"/{i}" for i in range(30)], web, concurrency=6)
        assert [a.result.body for a in answers] == [str(i).encode() for i in range(30)]
        assert web.paths()[0] == "/robots.txt"
        assert Counter(web.paths()).most_common(1)[0][1] == 1
        assert web.most_at_once <= 6


def test_disallowed_is_never_asked_for():
    with serve(ROBOTS | {"/yes": Page()}) as web:
        assert codes(ask(["/no/a", "/yes", "/no"], web)) == [RejectCode.DISALLOWED, Response, RejectCode.DISALLOWED]
        assert web.paths() == ["/robots.txt", "/yes"]


def test_missing_robots_allows_and_a_failing_one_forbids():
    with serve({"/a": Page()}) as web:
        assert codes(ask(["/a"], web)) == [Response]
    with serve({"/a": Page(), "/robots.txt": Page(status=503)}) as web:
        assert codes(ask(["/a"], web, retries=1)) == [RejectCode.ROBOTS_UNREACHABLE]
        assert web.paths() == ["/robots.txt"] * 2
    moved = {"/robots.txt": Page(status=301, headers={"Location": "/r2"}), "/r2": ROBOTS["/robots.txt"]}
    with serve(moved) as web:
        assert codes(ask(["/no"], web)) == [RejectCode.DISALLOWED]


def test_robots_alone():
    with serve(ROBOTS) as web:
        (answer,) = ask([Question(web.url + "/robots.txt", only_robots=True)], web)
        assert isinstance(answer.result, Robots)
        assert web.paths() == ["/robots.txt"]


@pytest.mark.parametrize("workers", [1, 4])
def test_rate_and_concurrency_hold_for_all_workers_together(workers):
    pages = ROBOTS | {f"/{i}": Page(seconds=0.05) for i in range(30)}
    exchange = Exchange(requests_per_s=25.0, concurrency=2)
    with serve(pages) as web, ThreadPoolExecutor(workers) as pool:
        parts = [[f"/{i}" for i in range(w, 30, workers)] for w in range(workers)]
        for answers in pool.map(lambda part: ask(part, web, exchange), parts):
            assert all(isinstance(a.result, Response) for a in answers)
        times = sorted(t for _, t in web.asked)
        assert web.most_at_once <= 2
        assert Counter(web.paths()).most_common(1)[0][1] == 1
        # whatever leaves in time may arrive a little late: over any ten requests that does not matter
        assert min(b - a for a, b in zip(times, times[10:])) >= 10 / 25 - 0.1


def test_a_host_without_a_rate_costs_few_calls():
    exchange = Exchange(requests_per_s=None, concurrency=8)
    with serve(ROBOTS | {f"/{i}": Page() for i in range(300)}) as web:
        ask([f"/{i}" for i in range(300)], web, exchange)
    assert exchange.calls < 60


def test_429_pauses_the_host_and_is_asked_again():
    def busy(n):
        return Page(status=429, headers={"Retry-After": "1"}) if n == 1 else Page(b"at last")

    with serve(ROBOTS | {"/busy": busy} | {f"/{i}": Page(seconds=0.01) for i in range(20)}) as web:
        answers = ask(["/busy"] + [f"/{i}" for i in range(20)], web, concurrency=1)
        assert {type(a.result) for a in answers} == {Response}
        assert answers[0].attempts == 2
        at = next(t for path, t in web.asked if path == "/busy")
        assert [path for path, t in web.asked if 0.05 < t - at < 1.0] == []


def test_a_lease_that_was_given_before_a_429_was_known_is_not_used():
    """The 429 comes while the worker asks the doorkeeper for more: it gets a lease, and knows better by then."""
    given, refused, asked, keeper = threading.Event(), threading.Event(), [], Exchange(requests_per_s=50.0, concurrency=8)

    class Host:
        config = FetchConfig(retries=1)

        def ask(self, url, validators, accept):
            asked.append((url[-2:], time.monotonic()))
            if url.endswith("/a") and not refused.is_set():
                given.wait(5)
                refused.set()
                raise TryLater("HTTP 429", 0.6, 429)
            return Response(url, 200, {}, b"")

    def exchange(message):
        reply = keeper(message)
        if asked[-1:] and asked[-1][0] == "/a" and reply.leases:
            given.set()
            refused.wait(5)
            time.sleep(0.05)  # the thread hands it over
        return reply

    questions = [Question(f"http://h.test/{name}") for name in "abcdefgh"]
    answers = ask_all(questions, Host(), exchange, 8, 5.0)
    assert codes(answers) == [Response] * 8
    assert [path for path, _ in asked[:2]] == ["xt", "/a"]
    assert asked[2][1] - asked[1][1] >= 0.6


def test_a_url_that_asks_for_too_long_is_left_and_the_others_are_not():
    with serve(ROBOTS | {"/busy": Page(status=429, headers={"Retry-After": "3600"}), "/a": Page()}) as web:
        started = time.monotonic()
        answers = ask(["/busy", "/a"], web, max_wait_s=0.3, concurrency=1)
        assert codes(answers) == [RejectCode.HOST_BUSY, Response]
        assert answers[0].wait_s == 3600.0
        assert time.monotonic() - started < 60


def test_a_host_that_is_down_does_not_cost_every_url_its_attempts():
    exchange = Exchange(requests_per_s=None, concurrency=4)
    questions = [Question(f"http://127.0.0.1:9/{i}") for i in range(200)]
    answers = ask_all(questions, fetcher(retries=0), exchange, 8, 5.0)
    assert set(codes(answers)) <= {RejectCode.ROBOTS_UNREACHABLE}


def test_redirects_are_answers_or_followed_by_robots_rules():
    pages = ROBOTS | {
        "/a": Page(status=302, headers={"Location": "/b"}),
        "/b": Page(status=302, headers={"Location": "/c"}),
        "/c": Page(b"c"),
        "/out": Page(status=302, headers={"Location": "/no"}),
        "/loop": Page(status=302, headers={"Location": "/loop"}),
    }
    with serve(pages) as web:
        follow = [Question(web.url + path, follow=2) for path in ("/a", "/out", "/loop")]
        answers = ask(["/a", *follow], web)
        assert codes(answers) == [Redirect, Response, RejectCode.DISALLOWED, RejectCode.FETCH_FAILED]
        assert "/no" not in web.paths()


def test_private_hosts_are_blocked_without_a_connection():
    with serve(ROBOTS | {"/out": Page(status=302, headers={"Location": "http://localhost:1/x"})}) as web:
        questions = [Question(web.url + "/out", follow=3), Question("http://10.0.0.1/"), Question("file:///etc/passwd")]
        answers = ask(questions, web)
        assert codes(answers) == [RejectCode.BLOCKED_URL] * 3


def test_what_a_thread_raises_comes_out():
    strange = Fetcher(FetchConfig(allow_private_hosts=LOCAL))
    strange.ask = lambda *args: (_ for _ in ()).throw(UsageError("fetch.contact is not set"))
    with pytest.raises(UsageError, match="contact"):
        ask_all([Question("http://127.0.0.1:1/")], strange, Exchange(), 2, 1.0)


def test_remembered_robots_cost_a_304():
    tagged = Page(ROBOTS["/robots.txt"].body, headers={"ETag": '"r1"'})
    with serve({"/robots.txt": tagged, "/a": Page()}) as web:
        first = Doorkeeper(PolitenessConfig(requests_per_s=None), "w2w", 60.0)
        assert codes(ask(["/no", "/a"], web, first.exchange)) == [RejectCode.DISALLOWED, Response]
        second = Doorkeeper(PolitenessConfig(requests_per_s=None), "w2w", 60.0, remembered=first.robots())
        assert codes(ask(["/no", "/a"], web, second.exchange)) == [RejectCode.DISALLOWED, Response]
        assert web.headers[2]["If-None-Match"] == '"r1"'
        assert second.robots() == first.robots()
