"""Files that a list names: many threads of one worker, and no more than a host bears."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.unit.web.servers import LOCAL, rejected
from tests.unit.web.webs import Page, serve
from w2w.errors import RejectCode, UsageError
from w2w.web.fetch import Fetcher, ListedFetchConfig


def listed(**settings) -> Fetcher:
    return Fetcher(ListedFetchConfig(**{"allow_private_hosts": LOCAL, "deadline_s": 0.8, "retries": 0, **settings}))


def test_rate_and_concurrency_hold_and_waiting_for_a_turn_is_no_slowness():
    get = listed(requests_per_s=20.0, concurrency=2, deadline_s=1.3).get_bytes
    with serve({f"/{i}": Page(b"x", seconds=0.05) for i in range(30)}) as web, ThreadPoolExecutor(30) as pool:
        assert list(pool.map(get, [f"{web.url}/{i}" for i in range(30)])) == [b"x"] * 30
        times = sorted(t for _, t in web.asked)
        assert web.most_at_once <= 2
        assert times[-1] - times[0] >= 29 / 20 - 0.1


def test_one_429_holds_back_all_threads():
    get = listed(requests_per_s=None, concurrency=1, deadline_s=5.0).get_bytes
    with serve({"/busy": Page(status=429, headers={"Retry-After": "1"}), "/a": Page(b"a")}) as web:
        with rejected(RejectCode.FETCH_FAILED, "HTTP 429"):
            get(f"{web.url}/busy")
        assert get(f"{web.url}/a") == b"a"
        (_, refused), (_, asked) = web.asked
        assert asked - refused >= 1.0


def test_a_host_that_is_down_is_left_to_a_later_run():
    get = listed(requests_per_s=None, deadline_s=30.0).get_bytes
    for _ in range(20):
        with rejected(RejectCode.FETCH_FAILED, "connection failed"):
            get("http://127.0.0.1:9/x")
    with rejected(RejectCode.HOST_BUSY, "refuses or fails"):
        get("http://127.0.0.1:9/x")


@pytest.mark.parametrize("options", [{"requests_per_s": 0}, {"requests_per_s": float("nan")}, {"concurrency": 0}])
def test_options(options):
    with pytest.raises(UsageError, match=f"fetch.{next(iter(options))}="):
        ListedFetchConfig(**options)
