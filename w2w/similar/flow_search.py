"""The searches of a night that reads the whole catalog: in this process if they are few, else as tasks on Ray."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from w2w import schema
from w2w.engine.shuffle import check_lengths, to_matrix
from w2w.engine.tasks import cluster_cpus, collect, put, submit
from w2w.similar import exact
from w2w.similar.exact import Block, Found, Goods, Lists
from w2w.similar.flow import Catalog, Plan
from w2w.table import delta

_LEAST_ROWS, _MOST_ROWS = 2048, 16_384  # vectors read at once: 21 MB on the grid at 1280 dimensions, more of shorter ones
_BATCH_BYTES = 5_000_000  # of them, as stored
_ASKED = 4096  # lists that a task makes while it reads all vectors
_CAME = 8192  # products that came, held at once: 84 MB
_PART_ROWS = 50_000  # of a task that compares them with the others
_PAIRS_HERE = 50_000_000  # scores worth no cluster: seconds


def stored_vectors(
    store: str,
    listed: Sequence[delta.Part],
    order_N: np.ndarray,
    row_N: np.ndarray,
    start: int,
    at_once: tuple[int, int, int],
    dim: int | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions ``order_N`` and vectors, float32, of rows ``row_N``, ascending, of the parts, which begin with row ``start``.
    ``at_once``: bytes as stored, and least and most rows; ``dim``: of every vector, if it is known."""
    most_bytes, least, most = at_once
    for part in listed:
        low, high = np.searchsorted(row_N, [start, start + part.rows])
        if low == high:
            start += part.rows
            continue
        size = int(np.clip(most_bytes * part.rows // part.size, least, most))
        for batch in delta.read_batches(store, schema.EMBEDDINGS, [schema.VECTOR], [part], size):
            low, high = np.searchsorted(row_N, [start, start + batch.num_rows])
            if low < high:
                pick, column = row_N[low:high] - start, batch.column(0).combine_chunks()
                whole = len(pick) == batch.num_rows and np.array_equal(pick, np.arange(len(pick)))
                vectors = to_matrix(column if whole else column.take(pa.array(pick)))
                dim = dim or vectors.shape[1]
                check_lengths({dim, vectors.shape[1]})
                yield order_N[low:high], vectors
            start += batch.num_rows


@dataclass(frozen=True)
class Reader:
    """Reads vectors of some products, block by block: ``order_N``, their positions by the row of their vector, ``row_N``."""

    store: str
    order_N: np.ndarray
    row_N: np.ndarray

    @staticmethod
    def of(catalog: Catalog, some: np.ndarray) -> "Reader":
        order = some[np.argsort(catalog.row_N[some], kind="stable")]
        return Reader(catalog.vectors.store, order, catalog.row_N[order])

    def blocks(self, listed: Sequence[delta.Part], start: int = 0) -> Iterator[Block]:
        """``start``: the row with which the parts begin."""
        read = stored_vectors(self.store, listed, self.order_N, self.row_N, start, (_BATCH_BYTES, _LEAST_ROWS, _MOST_ROWS))
        return ((positions, exact.on_grid(vectors)) for positions, vectors in read)

    def all(self, listed: Sequence[delta.Part]) -> Block:
        positions, grids = zip(*self.blocks(listed))
        return np.concatenate(positions), np.concatenate(grids)


@dataclass(frozen=True)
class _Known:
    """What every task reads: all products that lists may have (``among``), and those whose lists go on."""

    goods: Goods
    listed: list[delta.Part]
    among: Reader
    going: Reader
    bound_N: np.ndarray


class Searches:
    """Runs the searches of a plan: in this process where ``here``, else as tasks of a cluster that it has joined."""

    def __init__(self, catalog: Catalog, plan: Plan):
        self._catalog, self._plan, goods = catalog, plan, catalog.goods
        every, going = np.arange(catalog.now.num_rows), np.flatnonzero(~plan.night.anew_N)
        among = np.flatnonzero(goods.allowed_N)
        self._known = _Known(
            goods, catalog.vectors.parts, Reader.of(catalog, among), Reader.of(catalog, going), plan.kept.bound_N
        )
        anew = np.flatnonzero(plan.night.anew_N)
        self.here = goods.num_pairs(anew, among) + goods.num_pairs(going, plan.night.came) <= _PAIRS_HERE or not len(every)

    def run(self, k: int) -> int:
        """Brings the lists of the plan up to date; returns how many were computed anew."""
        plan, kept, card_N = self._plan, self._plan.kept, self._catalog.goods.card_N
        known = self._known if self.here else put(self._known)
        due = plan.night.anew_N
        if self.here and 0 < due.sum() <= _ASKED and 0 < len(plan.night.came) <= _CAME and not due.all():
            self._read_once()
            due = np.zeros_like(due)
        elif not due.all():
            for some in np.array_split(plan.night.came, -(-len(plan.night.came) // _CAME) or 1):
                if len(some):
                    came = Reader.of(self._catalog, some).all(self._known.listed)
                    block = came if self.here else put(came)
                    for found in self._all(_arrivals, known, [(block, *part) for part in self._parts()], "compare"):
                        kept.take(found, card_N)
        anew = np.flatnonzero(due | kept.short(k))
        anew = anew[np.lexsort((self._catalog.row_N[anew], self._catalog.goods.scope_N[anew]))]
        size = _ASKED if self.here else int(min(_ASKED, max(256, -(-len(anew) // max(1, int(cluster_cpus()))))))
        width = kept.lists.member_NW.shape[1]
        asked = [(Reader.of(self._catalog, anew[i : i + size]), width) for i in range(0, len(anew), size)]
        for positions, lists in self._all(_search, known, asked, "search"):
            kept.put(positions, lists)
        return int((plan.night.anew_N | np.isin(np.arange(len(due)), anew)).sum())

    def _read_once(self) -> None:
        """Compares what came with the others, and searches for the new lists, while all vectors are read once."""
        night, kept, goods, listed = self._plan.night, self._plan.kept, self._catalog.goods, self._known.listed
        came = Reader.of(self._catalog, night.came).all(listed)
        asked = Reader.of(self._catalog, np.flatnonzero(night.anew_N)).all(listed)
        found: list[Found] = []

        def blocks() -> Iterator[Block]:
            for block in Reader.of(self._catalog, np.arange(len(night.anew_N))).blocks(listed):
                found.append(exact.arrivals(block, came, kept.bound_N, goods))
                yield block

        lists = exact.search(asked, blocks(), goods, Lists.empty(len(asked[0]), kept.lists.member_NW.shape[1]))
        for some in found:
            kept.take(some, goods.card_N)
        kept.put(asked[0], lists)

    def _parts(self) -> Iterator[tuple[list[delta.Part], int]]:
        start = 0
        for listed in delta.in_chunks(self._known.listed, _PART_ROWS):
            yield listed, start
            start += sum(part.rows for part in listed)

    def _all(self, function: Callable, known: object, arguments: Sequence[tuple], title: str) -> Iterable:
        if self.here:
            return (function(known, *each) for each in arguments)
        return collect([submit(function, known, *each) for each in arguments], title)


def _arrivals(known: _Known, came: Block, listed: Sequence[delta.Part], start: int) -> Found:
    found = [exact.arrivals(block, came, known.bound_N, known.goods) for block in known.going.blocks(listed, start)]
    none = exact.arrivals((came[0][:0], came[1][:0]), came, known.bound_N, known.goods)
    row, member, score = (np.concatenate(parts) for parts in zip(none, *found))
    return row, member, score


def _search(known: _Known, reader: Reader, width: int):
    asked = reader.all(known.listed)
    return asked[0], exact.search(asked, known.among.blocks(known.listed), known.goods, Lists.empty(len(asked[0]), width))
