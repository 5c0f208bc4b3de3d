"""What workers raise, as the driver tells it; without Ray."""

import pyarrow as pa
import pytest
from ray.exceptions import RayTaskError

from tests.unit.table.test_sink import EMBEDDINGS, lineage
from w2w.engine.run import _Plan, _seconds, _WholeWorker
from w2w.engine.tasks import raise_user_errors
from w2w.errors import JobFailed, StorageFailed, UsageError
from w2w.stage import Budget, Pool, Stage
from w2w.table.pending import ITEM_SCHEMA


@pytest.mark.parametrize(
    ("cause", "kind", "said"),
    [
        (PermissionError(13, "Permission denied", "/x"), StorageFailed, r"a worker cannot read or write: .*denied: '/x'"),
        (StorageFailed("cannot read s3://x: SlowDown"), StorageFailed, "^cannot read s3://x: SlowDown$"),
        (UsageError("no such model"), UsageError, "^no such model$"),
        (JobFailed("a gate"), JobFailed, "^a gate$"),
        (KeyError("a bug"), RayTaskError, "a bug"),
    ],
)
def test_what_comes_out_of_a_task(cause, kind, said):
    with pytest.raises(kind, match=said), raise_user_errors():
        raise RayTaskError("work", "traceback: a bug", cause).as_instanceof_cause()


class NoHome:
    def __init__(self):
        raise PermissionError(13, "Permission denied", "/home/x/.cache")


def test_a_model_that_cannot_be_cached_is_told_by_the_first_item():
    """Of a constructor that fails, Ray would keep the text alone, and start it again four times."""
    fields = pa.schema([("key", pa.string())])
    plan = _Plan("x", "x", fields, "key", None, (EMBEDDINGS,), lineage(), ("model",), 1, None)
    worker = _WholeWorker(plan, [Stage("model", NoHome, (), pa.schema([]))], fields, 8, True, True)
    with pytest.raises(PermissionError, match=r"/home/x/\.cache"):
        worker(ITEM_SCHEMA.empty_table())


def test_a_budget_is_spent_after_so_many_seconds():
    gpus = [Pool(), Pool(workers=2, num_gpus=1)]
    assert _seconds(Budget(), gpus) is None
    assert _seconds(Budget(minutes=2), [Pool()]) == 120
    assert _seconds(Budget(gpu_hours=1), gpus) == 1800
    assert _seconds(Budget(minutes=40, gpu_hours=1), gpus) == 1800
    assert _seconds(Budget(minutes=10, gpu_hours=1), gpus) == 600
    with pytest.raises(UsageError, match="no worker asks for a GPU"):
        _seconds(Budget(gpu_hours=1), [Pool(workers=2)])
    for name in ("minutes", "gpu_hours"):
        for value in (0, -1.0, float("nan"), float("inf")):
            with pytest.raises(UsageError, match=rf"budget\.{name}=.*: must be more than 0"):
                Budget(**{name: value})
