"""Functions that run on the cluster, values stored there, and objects in a process of their own."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeAlias

import ray

from w2w.engine.progress import Progress
from w2w.errors import JobFailed, StorageFailed, UsageError

Ref: TypeAlias = ray.ObjectRef  # a value on the cluster or the result of a task; a task that takes it receives the value


def put(value: object) -> Ref:
    """Stores a value in the cluster's memory once, for all tasks that take it."""
    return ray.put(value)


def submit(function: Callable, *args: object, num_cpus: float = 1, num_gpus: float = 0, num_returns: int = 1) -> Any:
    """Starts ``function(*args)`` as a task; returns a reference to its result, or to each of ``num_returns``."""
    task = _task(num_cpus, num_gpus, num_returns)
    return task.options(name=getattr(function, "__name__", "task")).remote(function, *args)


@lru_cache(maxsize=64)
def _task(num_cpus: float, num_gpus: float, num_returns: int):
    return ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, num_returns=num_returns)(_call)


def _call(function: Callable, *args):
    return function(*args)


def collect(tasks: Sequence, title: str) -> list:
    """The results of Ray tasks, in order, with progress. UsageError and JobFailed are re-raised as they are."""
    results: list = [None] * len(tasks)
    waiting = {task: i for i, task in enumerate(tasks)}
    with Progress(title, len(tasks), unit="tasks") as progress:
        while waiting:
            (ready, *_), _ = ray.wait(list(waiting), num_returns=1)
            with raise_user_errors():
                results[waiting.pop(ready)] = ray.get(ready)
            progress.update(len(tasks) - len(waiting), 0)
    return results


def run_task(function: Callable, *args: object, num_cpus: float = 1, num_gpus: float = 0, title: str) -> Any:
    """Runs ``function(*args)`` as one task and returns its result."""
    return collect([submit(function, *args, num_cpus=num_cpus, num_gpus=num_gpus)], title)[0]


class Actor:
    """An object in a process of its own, which ends with the driver. May be passed to stages as an argument."""

    def __init__(self, made_of: type, *args: object, name: str):
        kept = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(made_of)
        self._handle = kept.options(name=name).remote(*args)

    def ask(self, method: str, *args: object) -> Any:
        """Calls the method and returns its result."""
        return ray.get(getattr(self._handle, method).remote(*args))

    def stop(self) -> None:
        ray.kill(self._handle)


def cluster_cpus() -> float:
    """CPUs of the whole cluster."""
    return ray.cluster_resources().get("CPU", 1)


@contextmanager
def raise_user_errors() -> Iterator[None]:
    """Unwraps what Ray wraps when a worker raises: UsageError and JobFailed as they are, OSError as StorageFailed."""
    try:
        yield
    except ray.exceptions.RayError as e:
        causes = [c for c in _causes(e) if not isinstance(c, ray.exceptions.RayError)]
        for cause in causes:
            if isinstance(cause, (UsageError, JobFailed)):
                raise cause from None
        for cause in causes:
            if isinstance(cause, OSError):
                raise StorageFailed(f"a worker cannot read or write: {cause}") from e
        raise


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        e = todo.pop()
        if e is None or id(e) in seen:
            continue
        seen.add(id(e))
        yield e
        todo += [e.__cause__, e.__context__, getattr(e, "cause", None)]
