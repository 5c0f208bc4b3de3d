"""The account of a host: rate, concurrency, pauses, recovery, and workers that die."""

import itertools
import random

import pytest

from w2w.errors import UsageError
from w2w.web.politeness import Politeness, PolitenessConfig, Report, Turns


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(clock, lease_s=90.0, **settings) -> Politeness:
    return Politeness(PolitenessConfig(**settings), lease_s, clock)


def done(politeness, leases, **said) -> None:
    for lease in leases:
        politeness.report(Report(lease.lease_id, **{"answered": 1, **said}))


def test_rate_holds_over_any_window_whoever_asks(clock):
    politeness, granted = make(clock, requests_per_s=5.0, concurrency=100), []
    rng = random.Random(1)
    while clock.now < 1020:
        leases = politeness.acquire("h", 8)
        granted += [clock.now] * len(leases)
        done(politeness, leases)
        clock.now += rng.uniform(0, 0.1)
    assert all(b - a >= 0.2 - 1e-9 for a, b in itertools.pairwise(granted))
    assert len(granted) >= 0.95 * 20 * 5 * 0.8


def test_burst_comes_back_after_a_pause(clock):
    politeness = make(clock, requests_per_s=1.0, burst=3, concurrency=10)
    assert len(politeness.acquire("h", 9)) == 3
    assert politeness.acquire("h", 9) == []
    clock.now += 1.0
    assert len(politeness.acquire("h", 9)) == 1
    clock.now += 100
    assert len(politeness.acquire("h", 9)) == 3


def test_concurrency_is_shared_by_all_workers_and_freed_by_reports(clock):
    politeness = make(clock, requests_per_s=None, concurrency=4)
    leases = [lease for _ in range(9) for lease in politeness.acquire("h", 4)]
    assert sum(lease.slots for lease in leases) == 4
    assert leases[0].slots < 4  # a second worker finds a place
    assert leases[0].requests is None
    done(politeness, leases[:1])
    assert sum(lease.slots for lease in politeness.acquire("h", 9)) >= 1
    assert politeness.acquire("other", 1)


def test_a_dead_workers_lease_ends_by_itself(clock):
    politeness = make(clock, lease_s=30.0, requests_per_s=None, concurrency=1)
    assert politeness.acquire("h", 1)
    clock.now += 29.0
    assert politeness.acquire("h", 1) == []
    clock.now += 1.0
    assert politeness.acquire("h", 1)


def test_crawl_delay_is_kept_and_believed_up_to_a_limit(clock):
    politeness = make(clock, requests_per_s=10.0, burst=5, max_crawl_delay_s=30.0)
    politeness.set_crawl_delay("h", 7.0)
    done(politeness, politeness.acquire("h", 1))
    assert politeness.acquire("h", 1) == []
    assert politeness.wait_s("h") == pytest.approx(7.0)
    politeness.set_crawl_delay("slow", 86400.0)
    done(politeness, politeness.acquire("slow", 1))
    assert politeness.wait_s("slow") == pytest.approx(30.0)


def test_retry_after_holds_the_host(clock):
    politeness = make(clock, requests_per_s=None)
    (lease,) = politeness.acquire("h", 1)
    politeness.report(Report(lease.lease_id, waits_s=(10.0,)))
    clock.now += 9.9
    assert politeness.acquire("h", 1) == []
    assert politeness.wait_s("h") == pytest.approx(0.1)
    clock.now += 0.2
    assert politeness.acquire("h", 1)


def test_a_pause_is_never_longer_than_the_run_waits(clock):
    politeness = make(clock, requests_per_s=None, max_wait_s=20.0)
    (lease,) = politeness.acquire("h", 1)
    politeness.report(Report(lease.lease_id, waits_s=(3600.0,)))
    assert politeness.wait_s("h") == pytest.approx(20.0)


def test_slows_down_once_for_requests_that_were_under_way_together(clock):
    politeness = make(clock, requests_per_s=10.0, burst=4, concurrency=4)
    leases = politeness.acquire("h", 4)
    for lease in leases:
        politeness.report(Report(lease.lease_id, waits_s=(None,)))
    clock.now += 60.0
    assert len(politeness.acquire("h", 4)) == 1
    assert politeness.wait_s("h") == pytest.approx(0.2)  # 0.1 s doubled, once


def test_recovers_slowly(clock):
    politeness = make(clock, requests_per_s=10.0, concurrency=4)
    (lease,) = politeness.acquire("h", 1)
    politeness.report(Report(lease.lease_id, waits_s=(None,)))
    waits = []
    for _ in range(20):
        clock.now += 60.0
        done(politeness, politeness.acquire("h", 1))
        waits.append(politeness.wait_s("h"))
    assert waits == sorted(waits, reverse=True)
    assert waits[5] > 0.1
    assert waits[-1] == pytest.approx(0.1)


def test_a_host_that_only_refuses_is_left_alone(clock):
    politeness = make(clock, requests_per_s=None, max_wait_s=5.0)
    for _ in range(6):
        assert not politeness.is_too_busy("h")
        (lease,) = politeness.acquire("h", 1)
        politeness.report(Report(lease.lease_id, waits_s=(60.0,)))
        clock.now += 60.0
    assert politeness.is_too_busy("h")
    assert not politeness.is_too_busy("other")


def test_a_host_that_is_down_is_left_alone_and_one_answer_forgives(clock):
    politeness = make(clock, requests_per_s=None)
    for failed, too_busy in ((19, False), (0, False), (19, False), (1, True)):
        (lease,) = politeness.acquire("h", 1)
        politeness.report(Report(lease.lease_id, answered=not failed, failed=failed))
        assert politeness.is_too_busy("h") == too_busy


def test_reports_of_unknown_leases_change_nothing(clock):
    politeness = make(clock)
    politeness.report(Report(99, waits_s=(100.0,)))
    assert politeness.acquire("h", 1)


@pytest.mark.parametrize("settings", [{"requests_per_s": 0}, {"burst": 0}, {"concurrency": 0}, {"max_wait_s": -1}])
def test_bad_settings_name_themselves(settings):
    with pytest.raises(UsageError, match=next(iter(settings))):
        PolitenessConfig(**settings)


def test_threads_wait_for_their_turns_and_for_a_host_that_asks_for_a_pause(clock):
    waited = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        clock.now += seconds

    turns = Turns(PolitenessConfig(requests_per_s=20.0, concurrency=2), 60.0, clock, sleep)
    first = turns.take("h")
    for _ in range(40):
        turns.report(Report(turns.take("h").lease_id, answered=1))
    assert clock.now - 1000 == pytest.approx(2.0)
    assert turns.take("other")
    turns.report(Report(first.lease_id, waits_s=(30.0,)))
    turns.take("h")
    assert (clock.now - 1000, max(waited)) == (pytest.approx(32.0), pytest.approx(30.0))


def test_a_host_that_only_refuses_has_no_more_turns(clock):
    turns = Turns(PolitenessConfig(), 60.0, clock, lambda s: setattr(clock, "now", clock.now + s))
    for _ in range(6):
        turns.report(Report(turns.take("h").lease_id, waits_s=(1.0,)))
    assert turns.take("h") is None
