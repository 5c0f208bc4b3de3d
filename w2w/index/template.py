"""A template: axes, coarse centroids and code books, trained once, empty; every shard of its group is filled from a copy."""

import functools
import io
import math
from dataclasses import dataclass

import faiss
import numpy as np

from w2w.errors import UsageError
from w2w.index.spec import Spec

KMEANS_DIM = 128  # leading axes used for coarse clustering, whose time grows with them
_KMEANS_ROUNDS = 10
_POINTS_PER_CENTROID = 128
_UNIT = 1e-6  # a length this near 1 is 1: float32 rounding of normalised rows is a tenth of it


@dataclass(frozen=True)
class Template:
    """``base`` and ``refine`` are trained and empty. Inner product on unit vectors of ``dim`` dimensions."""

    spec: Spec
    dim: int
    axes_ED: np.ndarray | None
    base: faiss.Index
    refine: faiss.Index | None

    def inner(self, vectors_ND: np.ndarray) -> np.ndarray:
        """The vectors in the space of the codes, float32 (n, e)."""
        return vectors_ND if self.axes_ED is None else np.ascontiguousarray(vectors_ND @ self.axes_ED.T)

    @property
    def quantizer(self) -> faiss.Index:
        """None where there are no inverted lists."""
        return faiss.downcast_index(self.base.quantizer) if self.spec.num_lists else None

    def to_bytes(self) -> bytes:
        arrays = {
            "spec": np.array([self.spec.factory, str(self.spec.nprobe), str(self.spec.ef_search), str(self.spec.k_factor)]),
            "dim": np.array(self.dim),
            "base": faiss.serialize_index(self.base),
        }
        if self.axes_ED is not None:
            arrays["axes"] = self.axes_ED
        if self.refine is not None:
            arrays["refine"] = faiss.serialize_index(self.refine)
        out = io.BytesIO()
        np.savez(out, **arrays)
        return out.getvalue()

    @staticmethod
    def from_bytes(blob: bytes) -> "Template":
        """The caller has checked the blob's sha256 against the manifest."""
        with np.load(io.BytesIO(blob), allow_pickle=False) as stored:
            factory, *numbers = stored["spec"].tolist()
            return Template(
                Spec(factory, *map(int, numbers)),
                int(stored["dim"]),
                stored.get("axes"),
                faiss.deserialize_index(stored["base"]),
                faiss.deserialize_index(stored["refine"]) if "refine" in stored else None,
            )


@dataclass(frozen=True)
class Codes:
    """The filled indexes of one shard; row i is the i-th vector that was added."""

    base: faiss.Index
    refine: faiss.Index | None


def set_threads(num_threads: int) -> None:
    """faiss would use OMP_NUM_THREADS as of when it was loaded, which Ray sets to a task's CPUs at best."""
    if num_threads < 1:
        raise UsageError(f"num_threads={num_threads}: must be at least 1")
    faiss.omp_set_num_threads(num_threads)


def unit_vectors(vectors: np.ndarray, dim: int | None = None) -> np.ndarray:
    """float32 rows of length 1, shape (n, dim); the same array if they already are. Raises UsageError for another type or
    shape, NaN, infinity and zero vectors."""
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind != "f":
        kind = f"{vectors.dtype}{list(vectors.shape)}" if isinstance(vectors, np.ndarray) else type(vectors).__name__
        raise UsageError(f"vectors are {kind}: expected a float array of shape (rows, {dim or 'dimensions'})")
    if vectors.shape[1] != (dim or vectors.shape[1]) or not vectors.shape[1]:
        raise UsageError(f"vectors have {vectors.shape[1]} dimensions: expected {dim or 'at least 1'}")
    x_ND = vectors.astype(np.float32, order="C", copy=False)
    length_N1 = np.sqrt(np.einsum("nd,nd->n", x_ND, x_ND, dtype=np.float64))[:, None].astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(length_N1[:, 0]) | (length_N1[:, 0] == 0))
    if len(bad):
        raise UsageError(f"{len(bad)} of {len(x_ND)} vectors hold NaN, infinity or only zeros, the first one in row {bad[0]}")
    if np.abs(length_N1 - 1).max(initial=0) < _UNIT:
        return x_ND
    return x_ND / length_N1


def principal_axes(sample_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Axes of the second moment, largest first: (d, d) float32, one per row, and their mean squares (d,).

    From 16 rows per dimension: all of 50,000 x 256 took 0.8 s of a build of 4.2 s.
    """
    sample_ND = sample_ND[:: max(1, len(sample_ND) // (16 * sample_ND.shape[1]))]
    values, vectors = np.linalg.eigh((sample_ND.T @ sample_ND / len(sample_ND)).astype(np.float64))
    return np.ascontiguousarray(vectors[:, ::-1].T, dtype=np.float32), np.maximum(values[::-1], 1e-12)


class Sample:
    """Unit vectors (n, d) for training, and what all specs tried on them share: principal axes, coarse clusters."""

    def __init__(self, vectors_ND: np.ndarray, seed: int = 0):
        self.vectors_ND, self.seed = vectors_ND, seed
        self._list_N: dict[int, np.ndarray] = {}

    @functools.cached_property
    def principal(self) -> tuple[np.ndarray, np.ndarray]:
        return principal_axes(self.vectors_ND)

    def clusters(self, num_lists: int) -> np.ndarray:
        """The cluster of every vector, int64 (n,), by spherical k-means on the leading axes, independent of the codec."""
        if num_lists not in self._list_N:
            seen_NC = self.vectors_ND
            if seen_NC.shape[1] > KMEANS_DIM:
                seen_NC = np.ascontiguousarray(seen_NC @ self.principal[0][:KMEANS_DIM].T)
            options = faiss.ClusteringParameters()
            options.niter, options.seed, options.spherical = _KMEANS_ROUNDS, self.seed + 1, True
            options.min_points_per_centroid, options.max_points_per_centroid = 1, _POINTS_PER_CENTROID
            near = faiss.IndexFlatIP(seen_NC.shape[1])
            faiss.Clustering(seen_NC.shape[1], num_lists, options).train(seen_NC, near)
            self._list_N[num_lists] = near.search(seen_NC, 1)[1][:, 0]
        return self._list_N[num_lists]


def fit(spec: Spec, sample: Sample) -> Template:
    """Trains. Raises UsageError if the sample is too small for the spec."""
    sample_ND, seed = sample.vectors_ND, sample.seed
    dim = sample_ND.shape[1]
    inner_dim = spec.inner_dim(dim)
    needed = max(spec.num_lists, 256 if spec.num_parts else 1)
    if len(sample_ND) < needed:
        raise UsageError(f"index factory {spec.factory!r} needs {needed} rows to train on, there are {len(sample_ND)}")
    axes_ED = None
    if spec.transform == "PCA":
        axes_ED = sample.principal[0][:inner_dim]
    elif spec.transform == "PCAR":
        turn_EE = np.linalg.qr(np.random.default_rng(seed).standard_normal((inner_dim, inner_dim)))[0]
        axes_ED = (turn_EE.astype(np.float32) @ sample.principal[0][:inner_dim]).astype(np.float32)
    elif spec.transform == "OPQ":
        axes, variances = sample.principal
        axes_ED = axes[_deal_axes(variances[:inner_dim], spec.num_parts or inner_dim)]
    base = faiss.index_factory(inner_dim, spec.base, faiss.METRIC_INNER_PRODUCT)
    template = Template(spec, dim, axes_ED, base, _refine_index(spec, inner_dim))
    inner_NE = template.inner(sample_ND)
    if spec.num_lists:
        template.quantizer.add(_centroids(sample.clusters(spec.num_lists), inner_NE, spec.num_lists, seed))
    if spec.num_parts:
        base.pq.cp.niter, base.pq.cp.max_points_per_centroid, base.pq.cp.seed = _KMEANS_ROUNDS, _POINTS_PER_CENTROID, seed + 1
        base.pq.cp.min_points_per_centroid = 1
        if hasattr(base, "do_polysemous_training"):
            base.do_polysemous_training = (
                False  # simulated annealing of the code words: minutes, for a search mode not used here
            )
    if hasattr(base, "sq") and spec.codec in ("SQ4", "SQ6"):  # 16 levels from minimum to maximum lose 0.024 recall to outliers
        base.sq.rangestat, base.sq.rangestat_arg = faiss.ScalarQuantizer.RS_quantiles, 0.01 if spec.codec == "SQ4" else 0.003
    base.train(inner_NE)
    if template.refine is not None:
        template.refine.train(inner_NE)
    return template


def _refine_index(spec: Spec, dim: int) -> faiss.Index | None:
    return faiss.index_factory(dim, spec.refine, faiss.METRIC_INNER_PRODUCT) if spec.refine else None


def _deal_axes(variances_E: np.ndarray, num_parts: int) -> np.ndarray:
    """Order of the axes in which all parts have about the same product of variances (Ge et al. 2013, section 4.2)."""
    size = len(variances_E) // num_parts
    parts: list[list[int]] = [[] for _ in range(num_parts)]
    # offset so that no logarithm is negative: a part with more axes then always weighs more
    weights = np.log(variances_E / variances_E.min()) + 1.0
    total = np.zeros(num_parts)
    for axis, weight in enumerate(weights):
        part = int(np.argmin(total))
        parts[part].append(axis)
        total[part] = np.inf if len(parts[part]) == size else total[part] + weight
    return np.array([axis for part in parts for axis in part])


def _centroids(list_N: np.ndarray, inner_NE: np.ndarray, num_lists: int, seed: int) -> np.ndarray:
    """The clusters' unit means in the space of the codes, float32 (lists, e)."""
    order = np.argsort(list_N, kind="stable")
    starts = np.searchsorted(list_N[order], np.arange(num_lists))
    filled = np.flatnonzero(np.bincount(list_N, minlength=num_lists))
    mean_LE = np.empty((num_lists, inner_NE.shape[1]), np.float32)
    mean_LE[filled] = np.add.reduceat(inner_NE[order], starts[filled], axis=0)
    empty = np.setdiff1d(np.arange(num_lists), filled)
    mean_LE[empty] = inner_NE[np.random.default_rng(seed).choice(len(inner_NE), len(empty), replace=False)]
    return mean_LE / np.maximum(np.linalg.norm(mean_LE, axis=1, keepdims=True), 1e-12)


def fill(template: Template, vectors_ND: np.ndarray) -> Codes:
    """Codes of unit vectors, in their order."""
    base = faiss.clone_index(template.base)
    refine = faiss.clone_index(template.refine) if template.refine is not None else None
    for start in range(0, len(vectors_ND), 20_000):  # the rotated copy of a whole shard would double its memory
        inner_NE = template.inner(vectors_ND[start : start + 20_000])
        base.add(inner_NE)
        if refine is not None:
            refine.add(inner_NE)
    return Codes(base, refine)


def nearest_lists(template: Template, inner_NE: np.ndarray, nprobe: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Scores and numbers of the inverted lists to scan, (n, nprobe) each: the same for every shard of a template."""
    return template.quantizer.search(inner_NE, min(nprobe, template.spec.num_lists)) if template.spec.num_lists else None


def holding_lists(template: Template, inner_NE: np.ndarray, rows_L: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Like ``nearest_lists``: as many as hold this share of the rows that may be found, of which list l has ``rows_L[l]``; -1
    for those that have none. A filter may leave the lists around a query empty: its neighbours then lie in others."""
    scores_NL, lists_NL = template.quantizer.search(inner_NE, len(rows_L))
    of_list = rows_L[lists_NL]
    kept_NL = (of_list > 0) & (np.cumsum(of_list, axis=1) - of_list < share * rows_L.sum())
    width = int(np.flatnonzero(kept_NL.any(axis=0)).max(initial=-1)) + 1
    return scores_NL[:, :width], np.where(kept_NL, lists_NL, -1)[:, :width]


def search_codes(
    spec: Spec,
    codes: Codes,
    inner_NE: np.ndarray,
    k: int,
    lists: tuple[np.ndarray, np.ndarray] | None,
    effort: float = 1,
    only: faiss.IDSelector | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores float32 and rows int64, (n, k) each, best first; -1 where fewer were scanned. Not re-ranked. ``effort`` multiplies
    the queue of a graph; rows that ``only`` leaves out are passed over, where the spec ``can_filter``."""
    if lists is not None:
        return _scan_lists(codes.base, inner_NE, k, *lists, only)
    if "HNSW" in spec.base:
        queue = faiss.SearchParametersHNSW(efSearch=max(math.ceil(spec.ef_search * effort), k), sel=only)
        return codes.base.search(inner_NE, k, params=queue)
    return codes.base.search(inner_NE, k, params=faiss.SearchParameters(sel=only) if only else None)


def _scan_lists(
    base: faiss.IndexIVF,
    inner_NE: np.ndarray,
    k: int,
    scores_NP: np.ndarray,
    lists_NP: np.ndarray,
    only: faiss.IDSelector | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Like ``search_preassigned``, but without setting ``nprobe`` on an index that other threads are searching."""
    inner_NE, scores_NP, lists_NP = (np.ascontiguousarray(a) for a in (inner_NE, scores_NP, lists_NP))
    scores, rows = np.empty((len(inner_NE), k), np.float32), np.empty((len(inner_NE), k), np.int64)
    arrays = [faiss.swig_ptr(a) for a in (lists_NP, scores_NP, scores, rows)]
    probe = faiss.SearchParametersIVF(nprobe=lists_NP.shape[1], sel=only)
    base.search_preassigned_c(len(inner_NE), faiss.swig_ptr(inner_NE), k, *arrays, False, probe)
    return scores, rows


def rerank(codes: Codes, inner_NE: np.ndarray, of_M: np.ndarray, rows_M: np.ndarray) -> np.ndarray:
    """Inner products of query ``of_M[i]`` with the refinement code of row ``rows_M[i]``, float32 (m,)."""
    if codes.refine is None:
        raise ValueError("codes without a refinement cannot re-rank")
    scores_M = np.empty(len(rows_M), np.float32)
    for start in range(0, len(rows_M), 10_000):
        part = slice(start, start + 10_000)
        decoded = codes.refine.reconstruct_batch(np.ascontiguousarray(rows_M[part]))
        scores_M[part] = np.einsum("me,me->m", decoded, inner_NE[of_M[part]])
    return scores_M
