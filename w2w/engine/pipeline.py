"""Several operators on Ray Data: rows travel between workers as Arrow blocks through the object store, with back-pressure, so
that CPU tasks feed GPU actors."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy, TaskPoolStrategy

from w2w.engine.private import CHATTY
from w2w.engine.workers import Operator


def run_together(operators: Sequence[Operator], blocks: list[pa.Table]) -> Iterator[pa.Table]:
    """Yields the last operator's tables as they arrive. Each operator yields tables; the first takes whole blocks, later ones
    ``pool.batch_rows`` at a time."""
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    shown = context.enable_progress_bars, context.print_on_execution_start
    context.enable_progress_bars = context.print_on_execution_start = False  # w2w shows its own, in rows
    dataset = ray.data.from_blocks(blocks)  # from_arrow would start a worker just to count rows
    for i, operator in enumerate(operators):
        pool = operator.pool
        batch: dict[str, Any] = {
            "batch_size": pool.batch_rows if i else None,
            "batch_format": "pyarrow",
            "zero_copy_batch": True,
        }
        resources = {"num_cpus": pool.num_cpus, "num_gpus": pool.num_gpus or None}
        if operator.loads_model:
            batch |= {"fn_constructor_args": operator.arguments}
            compute = ActorPoolStrategy(min_size=1, max_size=operator.workers, initial_size=operator.workers)
            dataset = dataset.map_batches(operator.work, compute=compute, **resources, **batch)
        else:
            compute = TaskPoolStrategy(size=operator.workers)
            dataset = dataset.map_batches(_called(operator), compute=compute, **resources, **batch)
    try:
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    finally:  # the context is process-wide, and the user's own datasets may rely on it
        context.enable_progress_bars, context.print_on_execution_start = shown


def _called(operator: Operator) -> Callable[[pa.Table], Iterator[pa.Table]]:
    def call(block: pa.Table) -> Iterator[pa.Table]:
        yield from operator.work(*operator.arguments)(block)

    return call
