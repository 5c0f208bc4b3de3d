"""Items handed to Ray tasks or actors one at a time, results as they arrive.

Stages that share workers stream nothing between operators, so they do not need Ray Data, which costs 3 s of CPU in the driver,
in every worker and in each of its three actors before the first row.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import ray

from w2w.errors import JobFailed
from w2w.stage import Pool

_AHEAD = 2  # items queued at a worker, so that it never waits for the driver
_RETRIES = 3  # of an item whose worker died


@dataclass(frozen=True)
class Operator:
    """A worker's function: ``work(*arguments)(item)``; ``work(*arguments)`` runs once per actor if it loads a model."""

    work: Callable
    arguments: tuple
    pool: Pool
    workers: int | None
    loads_model: bool


def run_alone(operator: Operator, items: Sequence, until: float | None = None) -> Iterator:
    """Yields the operator's results as they arrive. ``until``: on ``time.monotonic``; no item is begun that would end later, if
    it took as long as the longest so far."""
    resources = {"num_cpus": operator.pool.num_cpus, "num_gpus": operator.pool.num_gpus}
    run = _by_actors if operator.loads_model else _by_tasks
    return run(operator.work, operator.arguments, items, resources, operator.workers or 1, _Clock(until))


class _Clock:
    """Says when no more items are to be begun."""

    def __init__(self, until: float | None):
        self._until, self._longest, self._begun = until, 0.0, dict[object, float]()

    def begins(self, reference: object) -> None:
        self._begun[reference] = time.monotonic()

    def ends(self, reference: object) -> None:
        if (begun := self._begun.pop(reference, None)) is not None:
            self._longest = max(self._longest, time.monotonic() - begun)

    @property
    def is_over(self) -> bool:
        return self._until is not None and time.monotonic() + self._longest >= self._until


def _by_tasks(work: Callable, arguments: tuple, items: Sequence, resources: dict, num_workers: int, clock: _Clock) -> Iterator:
    """Worker processes are kept for the next call."""
    task = ray.remote(max_retries=_RETRIES, **resources)(_once)
    left, running = deque(items), []
    while left or running:
        while left and len(running) < num_workers * _AHEAD and not clock.is_over:
            running.append(task.remote(work, arguments, left.popleft()))
            clock.begins(running[-1])
        if not running:
            return
        (done, *_), running = ray.wait(running)
        clock.ends(done)
        yield _result(done)


def _by_actors(work: Callable, arguments: tuple, items: Sequence, resources: dict, num_workers: int, clock: _Clock) -> Iterator:
    """An actor gets items once it is ready: one that the cluster has no room for yet holds up nothing."""
    actor_class = ray.remote(max_restarts=-1, max_task_retries=_RETRIES, **resources)(_Actor)
    actors = [actor_class.remote(work, arguments) for _ in range(num_workers)]
    left, running = deque(items), {actor.ready.remote(): actor for actor in actors}
    try:
        starting = set(running)
        while left or len(running) > len(starting):
            (done, *_), _ = ray.wait(list(running))
            actor = running.pop(done)
            clock.ends(done)
            result = _result(done)
            if clock.is_over:
                left.clear()
            # towards the end, an item queued behind another is one that an idle worker could have taken
            ahead = _AHEAD if done in starting and len(left) > _AHEAD * num_workers else 1
            for _ in range(min(ahead, len(left))):
                begun = actor.work.remote(left.popleft())
                running[begun] = actor
                clock.begins(begun)
            if done in starting:
                starting.discard(done)
            else:
                yield result
    finally:
        for done in running:
            ray.cancel(done)  # otherwise Ray tells the user that it will retry the killed task
        for actor in actors:
            ray.kill(actor)


class _Actor:
    def __init__(self, work: Callable, arguments: tuple):
        self._work = work(*arguments)

    def ready(self) -> None:
        """Returns once the actor is running."""

    def work(self, item):
        return self._work(item)


def _once(work: Callable, arguments: tuple, item):
    return work(*arguments)(item)


def _result(reference):
    try:
        return ray.get(reference)
    except (ray.exceptions.ActorDiedError, ray.exceptions.ActorUnavailableError, ray.exceptions.WorkerCrashedError) as e:
        raise JobFailed(_lost(e)) from e
    except ray.exceptions.OutOfMemoryError as e:
        raise JobFailed(
            _lost(e) + " Out of memory: lower --pool.batch_rows, or give each worker more room with --pool.num_cpus."
        ) from e


def _lost(error: Exception) -> str:
    return (
        f"workers died {_RETRIES + 1} times on the same rows ({str(error).strip().splitlines()[0]}). What was committed stays; "
        "look at the worker's log in Ray's session folder, then run this again: it resumes where it stopped."
    )
