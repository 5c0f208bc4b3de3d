"""How many rejects fail a job."""

import pytest

from w2w.errors import JobFailed
from w2w.table.tolerance import Tolerance


@pytest.mark.parametrize(
    ("rejected", "rows", "fails"),
    [
        (0, 0, False),
        (1, 1, True),  # nothing is good
        (4, 4, True),
        (1, 2, False),
        (4, 5, False),  # a few never fail it
        (5, 6, True),
        (5, 100, False),  # nor does the allowed share
        (6, 100, True),
    ],
)
def test_it_takes_both_a_share_and_a_number(rejected, rows, fails):
    assert Tolerance(0.05, 5).exceeded(rejected, rows) == fails
    assert not Tolerance(1.0, 5).exceeded(rejected, rows)


def test_old_and_new_rejects_count_alike():
    strict = Tolerance(0.05, 5)
    strict.check({"empty": 3}, 100, before=2)
    with pytest.raises(JobFailed, match=r"6 of 100 rows were rejected \(3 empty, 1 corrupt, 2 by earlier runs\): more than"):
        strict.check({"corrupt": 1, "empty": 3}, 100, before=2)
