"""train, val and test by hash, where neither a data set nor a component decides."""

import numpy as np
import pyarrow as pa

from w2w import ids

TRAIN, VAL, TEST = "train", "val", "test"
_BUCKETS = 10_000  # resolution of a share


def split_of(groups: pa.Array, val_share: float, test_share: float) -> list[str]:
    """The split of each group, stable across machines, time and other contents."""
    place = ids.hash_bucket(groups, _BUCKETS) / _BUCKETS
    return np.where(place < test_share, TEST, np.where(place < test_share + val_share, VAL, TRAIN)).tolist()
