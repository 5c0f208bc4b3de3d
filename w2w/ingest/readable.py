"""Whether a feed's values can be read about as well as those of the night before."""

from collections import Counter
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.errors import BadInput
from w2w.ingest.raw import WARNED
from w2w.shown import line

# a category is never null, and pictures have limits of their own
_FIELDS = (schema.TITLE, schema.BRAND, schema.PRICE, schema.CURRENCY, schema.URL, schema.AVAILABILITY, schema.SALE_PRICE)
LAST_COLUMNS = (schema.FEED, schema.ACTIVE, *_FIELDS)
_EXAMPLES = 3


class Values:
    """Counts, over the batches of a feed, what can be read of each field."""

    def __init__(self):
        self._rows = 0
        self._filled, self._unread = Counter[str](), Counter[str]()
        self._examples: dict[str, list[str]] = {}

    def add(self, rows: pa.Table) -> None:
        """``rows``: FEED_SCHEMA."""
        self._rows += rows.num_rows
        for name in _FIELDS:
            self._filled[name] += rows.num_rows - rows.column(name).null_count
        warned = rows.filter(rows.column(WARNED).is_valid())
        for product, said in zip(*(warned.column(c).to_pylist() for c in (schema.PRODUCT_ID, WARNED))):
            for one in said:
                name = one[schema.COLUMN]
                self._unread[name] += 1
                if len(examples := self._examples.setdefault(name, [])) < _EXAMPLES:
                    examples.append(f"{product}: {one[schema.REJECT_DETAIL]}")

    def suspects(self, rate: float, least: int) -> list[str]:
        """Fields of which more than this share, and at least so many values, cannot be read."""
        return [f for f in _FIELDS if self._unread[f] >= least and self._unread[f] > rate * self._rows]

    def judge(self, suspects: Sequence[str], last: Iterable[pa.Table], feed: str, uri: str, rate: float) -> str | None:
        """Raises UsageError if a field among ``suspects`` has lost more than this share. ``last``: LAST_COLUMNS of the catalog.
        Returns why nothing could be compared."""
        have, filled = 0, Counter[str]()
        for batch in last:
            own = batch.filter(pc.and_(batch.column(schema.ACTIVE), pc.equal(batch.column(schema.FEED), feed)))
            have += own.num_rows
            for name in suspects:
                filled[name] += own.num_rows - own.column(name).null_count
        if not have:
            return f"{', '.join(suspects)}: many values cannot be read, and there is no earlier night to compare with"
        for name in suspects:
            before, now = filled[name] / have, self._filled[name] / self._rows
            if before - now > rate:
                examples = "; ".join(line(one) for one in self._examples[name])
                many = f"{self._unread[name]:,} of {self._rows:,} rows have a {name} that cannot be read ({examples})"
                fell = f"Of the products in the store, {before:.0%} have one; of tonight's, {now:.0%}"
                hint = "Is it written in another way now, or elsewhere? --feed.max_unread_rate=1 takes the feed as it is"
                raise BadInput(f"feed.uri={uri}: {many}. {fell}. Nothing was done. {hint}.")
        return None
