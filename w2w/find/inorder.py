"""Photos through stages in this process, loaded once: an answer for each, in order."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

import pyarrow as pa

from w2w import schema
from w2w.stage import Chain, Stage, leaving

A = TypeVar("A")


def _unseen(done: int, rejected: int) -> None:
    pass


class InOrder(Generic[A]):
    """``steps``: stages, of which the first loads a photo's bytes; they take rows of ``fields``, identified by column ``key``,
    to rows with the columns ``gives``. ``answers`` turns these into answers; ``unreadable`` makes one from a photo's name, a
    reject's code and its detail."""

    def __init__(
        self,
        steps: Sequence[Stage],
        fields: pa.Schema,
        gives: Sequence[str],
        answers: Callable[[pa.Table], Iterable[A]],
        unreadable: Callable[[str, str, str | None], A],
        key: str = schema.KEY,
    ):
        kept = [steps[0], Stage("keep", self._keep, (schema.KEY, schema.BYTES), pa.schema([])), *steps[1:]]
        (leaves,) = leaving([kept], fields, gives, [])
        self._chain = Chain(kept, key, None, leaves)
        self._answers, self._unreadable = answers, unreadable
        self._wanted, self._kept = set[str](), dict[str, bytes]()

    def __call__(
        self, tables: Iterator[pa.Table], names: Mapping[str, str], shown: int = 0, seen: Callable[[int, int], None] = _unseen
    ) -> tuple[list[A], dict[str, bytes]]:
        """The answers, and the encoded photos of the first ``shown``, by their keys.

        ``names``: key -> display name, of all photos. ``seen`` is called with the number answered so far, and how many of these
        could not be read.
        """
        made: dict[str, A] = {}
        rejected = 0
        self._wanted, self._kept = set(list(names)[:shown]), {}
        for rows, bad in self._chain.flow(tables):
            made |= zip(rows.column(schema.KEY).to_pylist(), self._answers(rows))
            made |= {key: self._unreadable(names[key], code, detail) for key, code, detail in rejects_of(bad)}
            rejected += bad.num_rows
            seen(len(made), rejected)
        assert len(made) == len(names), f"{len(names)} photos in, {len(made)} answers out"
        return [made[key] for key in names], self._kept

    def _keep(self, rows: pa.Table) -> pa.Table:
        """Keeps the very bytes that were searched with, for the page."""
        for key, data in zip(rows.column(schema.KEY).to_pylist(), rows.column(schema.BYTES)):
            if key in self._wanted:
                self._kept[key] = data.as_py()
        return rows


def rejects_of(rows: pa.Table) -> Iterator[tuple[str, str, str | None]]:
    """Key, code and detail of each."""
    return zip(*(rows.column(c).to_pylist() for c in (schema.KEY, schema.REJECT_CODE, schema.REJECT_DETAIL)))
