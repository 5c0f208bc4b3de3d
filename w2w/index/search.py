"""Search a published index: memory-mapped shards, verified on first use, exact merge, deterministic ties."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import storage
from w2w.config import nearest
from w2w.errors import JobFailed, UsageError
from w2w.index.manifest import Manifest
from w2w.index.opened import Shard, open_shards
from w2w.index.publish import current_version, read_manifest
from w2w.index.scan import Scanned, Scanner, scan
from w2w.index.shard import ROWS, read_template
from w2w.index.spec import Spec
from w2w.index.template import Template, set_threads, unit_vectors
from w2w.index.within import Within, few_of
from w2w.models.config import EncoderConfig
from w2w.models.encoder import in_precision_of, spaces
from w2w.schema import CATEGORY, IMAGE_ID, PRODUCT_ID, RANK, SCORE

QUERY = "query"  # position of the query in the searched array
HITS = pa.schema(
    [(QUERY, pa.int32()), (RANK, pa.int32()), (PRODUCT_ID, pa.string()), (IMAGE_ID, pa.string())]
    + [(CATEGORY, pa.string()), (SCORE, pa.float32())]
)
_SPARE = 2  # rows fetched beyond k: the next score shows whether a tie was cut off
_CELLS, _CELLS_FAR = 2_000_000, 8_000_000  # scores held at once; and where a scan is a round of tasks


@dataclass(frozen=True)
class Index:
    """An opened version of an index. ``scanner``: scans the shards somewhere else, unless there is a filter; its arguments are
    those of ``scan``."""

    manifest: Manifest
    templates: dict[str, Template]
    shards: tuple[Shard, ...]
    scanner: Scanner | None = field(default=None, repr=False)

    def search(
        self,
        vectors_ND: np.ndarray,
        k: int,
        categories: str | Sequence[str | None] | None = None,
        one_per_product: bool = False,
        num_threads: int = 1,
        within: Within | None = None,
    ) -> pa.Table:
        """The ``HITS`` of every query, sorted by query and rank (1 = nearest); score = cosine, as exact as the codes.

        ``categories`` is one for all, one per query, or None for everywhere. A query gets min(k, rows in scope) hits and no
        padding; ties are ordered by product_id, image_id. ``one_per_product`` keeps each product's best image. ``within``: the
        rows that may be found (``rows_of``), of which k are found, however rare they are. Raises UsageError for unknown
        categories, k < 1 and vectors of another type or length, or with NaN.

        With a filter either way: if the vectors of the rows that pass in a category can be compared with a query within
        ``latency_budget_ms``, and all that is held of them fits into 256 MB, each row is scored: an exact search,
        as far as the codes go (those that re-rank, if there are any). Otherwise, in each query's order of lists, those that
        hold as many rows that pass as a search without a filter scans, or one in 32 of all, if that is more.
        """
        if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
            raise UsageError(f"k={k!r}: must be a whole number of at least 1")
        set_threads(num_threads)
        unit_ND = unit_vectors(vectors_ND, self.manifest.dim)
        if categories is None or isinstance(categories, str):
            wanted: list[str | None] = [categories] * len(unit_ND)
        else:
            wanted = list(categories)
        if len(wanted) != len(unit_ND):
            raise UsageError(f"{len(wanted)} categories for {len(unit_ND)} queries: give one, or one for each query")
        scopes: dict[str | None, list[int]] = {}
        for i, category in enumerate(wanted):
            scopes.setdefault(category, []).append(i)
        known = self.manifest.rows_by_category()
        for category in scopes.keys() - {None}:
            if category not in known:
                raise UsageError(
                    f"category {category!r} is not in index {self.manifest.name!r}.{nearest(str(category), list(known))}"
                )
        only = within or self._everything
        work = []
        for category, queries in scopes.items():
            numbers = [i for i, s in enumerate(self.shards) if category is None or s.info.category == category]
            work += [(part, numbers) for part in np.array_split(queries, min(num_threads, len(queries)))]

        def find(part: np.ndarray, numbers: list[int]) -> "_Found":
            return self._scope(unit_ND, part, int(k), numbers, one_per_product, only)

        if num_threads == 1 or len(work) < 2:
            found = [find(*w) for w in work]
        else:
            # whole queries to each thread: faiss's own threads meet after every step, and spin while another job has the core
            # (17.9 s instead of 0.1 s were seen), and search_preassigned does not distribute queries among them at all
            with ThreadPoolExecutor(num_threads, initializer=set_threads, initargs=(1,)) as pool:
                found = list(pool.map(find, *zip(*work)))
        return self._table(_Found.join([_Found.empty(), *found]))

    @cached_property
    def _everything(self) -> Within:
        return Within.of(self.shards, [s.there for s in self.shards])

    def rows_of(self, product_ids: pa.Array | pa.ChunkedArray) -> Within:
        """The rows of these products that a search may find."""
        ids = pa.chunked_array([chunk for s in self.shards for chunk in s.rows[PRODUCT_ID].chunks], pa.string())
        found = pc.is_in(ids, value_set=product_ids).to_numpy()
        masks = np.split(found, np.cumsum([s.info.num_rows for s in self.shards])[:-1])
        masks = [some if s.there is None else some & s.there for some, s in zip(masks, self.shards, strict=True)]
        within = Within.of(self.shards, masks, filtered=True)
        budget_ms = self.manifest.config.latency_budget_ms
        return replace(within, few=few_of(self.shards, self.templates, within.sizes, budget_ms))

    def _scope(
        self, unit_ND: np.ndarray, queries: np.ndarray, k: int, numbers: list[int], one_per_product: bool, only: Within
    ) -> "_Found":
        """Hits of the queries in these shards. Fetches more rows while better ones may be hidden, scans more lists only where
        those scanned have fewer than k: so the answer does not depend on how rows are distributed among shards."""
        numbers = [i for i in numbers if only.sizes[i]]
        if not numbers:
            return _Found.empty()
        specs = [self.templates[self.shards[i].info.template].spec for i in numbers]
        # as many of the rows that may be found are scanned as of all without a filter, and fetched where faiss cannot choose
        rarity = sum(self.shards[i].info.num_there for i in numbers) / sum(only.sizes[i] for i in numbers)
        most = max(spec.most_effort(self.shards[i].info.num_rows) for spec, i in zip(specs, numbers, strict=True))
        parts = only.parts(numbers)
        largest = max(sum(only.in_reach(i, self.shards[i], self._spec(i)) for i in part) for part in parts)
        fetch = k * (2 if one_per_product else 1) + _SPARE
        if not all(spec.can_filter or only.is_few(i) for spec, i in zip(specs, numbers, strict=True)):
            fetch = max(fetch, min(math.ceil(fetch * rarity), largest))
        work, found_of = [(queries, fetch, min(rarity, most))], []
        while work:
            queries, fetch, effort = work.pop()
            chunk = max(1, (_CELLS if self.scanner is None else _CELLS_FAR) // (fetch * len(parts)))
            hidden, lacking = [], []
            for start in range(0, len(queries), chunk):
                some = queries[start : start + chunk]
                found, done, more = self._fetch(unit_ND[some], k, fetch, effort, parts, one_per_product, only)
                found_of.append(found.of_queries(some, done))
                hidden.append(some[~done & more])
                lacking.append(some[~done & ~more])
            further = [(hidden, min(fetch * 4, largest), effort), (lacking, fetch, min(effort * 4, most))]
            for rest, more_fetch, more_effort in further:
                left = np.concatenate(rest)
                assert not len(left) or (more_fetch, more_effort) != (fetch, effort), "every row was fetched"
                work += [(left, more_fetch, more_effort)] if len(left) else []
        return _Found.join(found_of)

    def _spec(self, number: int) -> Spec:
        return self.templates[self.shards[number].info.template].spec

    def _fetch(
        self,
        unit_ND: np.ndarray,
        k: int,
        fetch: int,
        effort: float,
        parts: list[tuple[int, ...]],
        one_per_product: bool,
        only: Within,
    ) -> tuple["_Found", np.ndarray, np.ndarray]:
        """The best k of at most ``fetch`` rows per part; which queries (n,) are done; and of which there are rows that were
        scanned and not fetched."""
        numbers = [i for part in parts for i in part]
        if self.scanner is None or only.filtered:
            scanned = scan(self.shards, self.templates, unit_ND, fetch, effort, parts, only)
        else:
            scanned = self.scanner(unit_ND, fetch, effort, parts)
        scores, shards, rows = scanned.scores, scanned.shards, scanned.rows
        in_reach = np.isfinite(scores).sum(axis=1)
        if len(parts) > 1 or only.few or any(self._spec(i).refine for i in numbers):  # otherwise they are sorted already
            width = scores.shape[1] if one_per_product or any(only.masks[i] is not None for i in numbers) else k + _SPARE
            order = _best_first(scores, k, width)
            scores, shards, rows = (np.take_along_axis(a, order, axis=1) for a in (scores, shards, rows))
        # few queries have ties, and only these pay for a sort by three keys
        equal = np.flatnonzero(((scores[:, 1:] == scores[:, :-1]) & np.isfinite(scores[:, 1:])).any(axis=1))
        order = np.lexsort((rows[equal], shards[equal], -scores[equal]), axis=1)
        for array in (scores, shards, rows):
            array[equal] = np.take_along_axis(array[equal], order, axis=1)
        valid = np.isfinite(scores)
        for number in numbers:
            if (mask := only.masks[number]) is not None:
                here = valid & (shards == number)
                valid[here] = mask[rows[here]]
        if one_per_product:
            valid &= self._first_of_product(shards, rows, valid)
        place = np.cumsum(valid, axis=1)
        enough = place[:, -1] >= k
        kth = np.where(enough, scores[np.arange(len(scores)), np.argmax(place >= k, axis=1)], -np.inf)
        complete = enough & (scanned.hidden < kth)
        self._order_ties(scores, shards, rows, valid, kth)
        keep = valid & (np.cumsum(valid, axis=1) <= k)
        of, at = np.nonzero(keep)
        found = _Found(of, np.cumsum(keep, axis=1)[of, at], shards[of, at], rows[of, at], scores[of, at])
        all_scanned = scanned.everything | (in_reach >= sum(only.in_reach(i, self.shards[i], self._spec(i)) for i in numbers))
        return found, complete | all_scanned, scanned.more

    def scan(self, unit_ND: np.ndarray, fetch: int, effort: float, parts: list[tuple[int, ...]]) -> Scanned:
        """What is fetched of these parts of the shards without a filter: ``fetch`` rows of each, before any is left out."""
        return scan(self.shards, self.templates, unit_ND, fetch, effort, parts, self._everything)

    def _first_of_product(self, shards: np.ndarray, rows: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """True at the best row of each product, (n, f). All images of a product are in one shard."""
        product = np.zeros(rows.shape, np.int64)
        for number in np.unique(shards):
            here = (shards == number) & valid
            product[here] = self.shards[number].products[rows[here]]
        key = np.where(valid, shards.astype(np.int64) << 32 | product, -1)
        order = np.argsort(key, axis=1, kind="stable")
        ordered = np.take_along_axis(key, order, axis=1)
        first = np.ones(key.shape, bool)
        first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        out = np.empty_like(first)
        np.put_along_axis(out, order, first, axis=1)
        return out

    def _order_ties(self, scores: np.ndarray, shards: np.ndarray, rows: np.ndarray, valid: np.ndarray, kth: np.ndarray) -> None:
        """In place: orders rows of equal score from several shards by their ids; within a shard they are ordered already."""
        tied = (scores[:, 1:] == scores[:, :-1]) & (shards[:, 1:] != shards[:, :-1]) & (scores[:, 1:] >= kth[:, None])
        for q in np.flatnonzero((tied & np.isfinite(scores[:, 1:])).any(axis=1)):
            top = np.flatnonzero((scores[q] >= kth[q]) & np.isfinite(scores[q]))
            ids = [self.shards[s].rows.slice(r, 1).to_pylist()[0] for s, r in zip(shards[q, top], rows[q, top], strict=True)]
            order = sorted(range(len(top)), key=lambda i: (-scores[q, top[i]], ids[i][PRODUCT_ID], ids[i][IMAGE_ID]))
            for array in (scores, shards, rows, valid):
                array[q, top] = array[q, top[order]]

    def _table(self, found: "_Found") -> pa.Table:
        order = np.lexsort((found.rank, found.query))
        shard = found.shard[order]
        by_shard = np.argsort(shard, kind="stable")
        parts, row = [ROWS.empty_table()], found.row[order][by_shard]
        numbers, starts = np.unique(shard[by_shard], return_index=True)
        for number, mine in zip(numbers, np.split(row, starts)[1:], strict=True):
            parts.append(self.shards[number].rows.take(pa.array(mine)))
        categories = pa.array([s.info.category for s in self.shards], pa.string()).take(pa.array(shard))
        back = pa.array(np.argsort(by_shard))
        ids = pa.concat_tables(parts).take(back)
        columns = [
            found.query[order],
            found.rank[order],
            ids[PRODUCT_ID],
            ids[IMAGE_ID],
            categories,
        ]
        return pa.table([*columns, found.score[order]], names=HITS.names).cast(HITS)


def _best_first(scores_NF: np.ndarray, k: int, width: int) -> np.ndarray:
    """Columns of each row by falling score, earlier ones first where scores are equal: the best ``width`` of them, or all where
    these do not hold everything that is as good as the k-th."""
    if width < scores_NF.shape[1]:
        some = np.sort(np.argpartition(-scores_NF, width - 1, axis=1)[:, :width], axis=1)
        near = np.take_along_axis(scores_NF, some, axis=1)
        order = np.argsort(-near, axis=1, kind="stable")
        kth, last = (np.take_along_axis(near, order[:, i : i + 1], axis=1) for i in (k - 1, width - 1))
        if (last < kth).all():
            return np.take_along_axis(some, order, axis=1)
    return np.argsort(-scores_NF, axis=1, kind="stable")


@dataclass(frozen=True)
class _Found:
    """Hits as five arrays of one length."""

    query: np.ndarray
    rank: np.ndarray
    shard: np.ndarray
    row: np.ndarray
    score: np.ndarray

    @staticmethod
    def empty() -> "_Found":
        none = np.empty(0, np.int64)
        return _Found(none, none, none, none, np.empty(0, np.float32))

    @staticmethod
    def join(parts: list["_Found"]) -> "_Found":
        return _Found(*(np.concatenate([getattr(p, n) for p in parts]) for n in ("query", "rank", "shard", "row", "score")))

    def of_queries(self, queries: np.ndarray, done: np.ndarray) -> "_Found":
        """Only the finished queries, by their positions among all queries."""
        keep = done[self.query]
        return _Found(queries[self.query[keep]], self.rank[keep], self.shard[keep], self.row[keep], self.score[keep])


def open_index(uri: str, model_version: str | None = None, cache_dir: str | None = None, version: str | None = None) -> Index:
    """The published index below ``uri``, or one of its versions; every file is checked against the manifest's sha256 before it
    is read: templates at once, a shard when a search first needs it.

    Shards on s3:// are downloaded once to ``cache_dir`` (default ~/.cache/w2w/index). Raises UsageError if nothing is published
    or the query's ``model_version`` is not the index's, JobFailed for missing files and damaged templates; of a damaged shard,
    the first search of it does.
    """
    for last_try in (False, True):
        manifest = read_manifest(uri, version)
        if model_version is not None:
            check_model(manifest, model_version)
        try:
            return open_manifest(uri, manifest, cache_dir)
        except JobFailed:  # the next version may have been published meanwhile, and this one's shards deleted
            if last_try or version is not None or current_version(uri) == manifest.version:
                raise
    raise AssertionError("one of two tries returns or raises")


def check_model(manifest: Manifest, *model_versions: str) -> None:
    """Raises UsageError if that model's queries, comparable with those of any of these versions, are not so with the index's
    vectors."""
    if manifest.model_version not in model_versions:
        raise UsageError(
            f"the queries were embedded by model version {model_versions[0]} and index {manifest.name!r} by "
            f"{manifest.model_version}: their vectors cannot be compared; embed the queries with {manifest.encoder} "
            f"{manifest.model_version}, or run 'w2w index' for {model_versions[0]}"
        )


def check_encoder(manifest: Manifest, encoder: EncoderConfig) -> None:
    """As ``check_model``, of the queries that this encoder embeds; tells what to set where only its precision or the weight of
    its part for colours is another."""
    if manifest.model_version in (versions := spaces(encoder)):
        return
    alike = [encoder]
    if manifest.encoder == encoder.name:  # another may have no such part
        alike.append(replace(encoder, colour=manifest.colour))
    same = next(filter(None, (in_precision_of(one, manifest.model_version) for one in alike)), None)
    if same is None:
        return check_model(manifest, *versions)
    names = [name for name in ("colour", "dtype", "store_dtype") if getattr(same, name) != getattr(encoder, name)]
    was, would = (" and ".join(f"encoder.{name}={getattr(one, name)}" for name in names) for one in (same, encoder))
    raise UsageError(
        f"index {manifest.name!r} was made of {encoder.name} with {was}, and the queries would be embedded with {would}: their "
        f"vectors cannot be compared; set {was}, or run 'w2w embed' and 'w2w index' with {would}"
    )


def check_category(manifest: Manifest, category: str | None) -> None:
    """Raises UsageError if the index has no such category."""
    known = manifest.rows_by_category()
    if category is not None and category not in known:
        raise UsageError(f"category {category!r} is not in index {manifest.name!r}.{nearest(str(category), list(known))}")


def open_manifest(uri: str, manifest: Manifest, cache_dir: str | None = None) -> Index:
    """The index that a manifest describes, published or not."""
    cache = cache_dir or str(storage.cache_folder())
    templates = {t.name: read_template(uri, t) for t in manifest.templates}
    return Index(manifest, templates, open_shards(uri, manifest, templates, storage.join(cache, "index")))
