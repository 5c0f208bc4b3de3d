"""A scan of shards: the rows of each that are nearest to the queries, as far as its lists and codes tell."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from w2w.index.exact import NOISE
from w2w.index.opened import Shard
from w2w.index.template import Template, holding_lists, nearest_lists, rerank, search_codes
from w2w.index.within import Within

_DECIMALS = 6  # float32 sums vary in the seventh decimal with the batch size: rounding keeps ties stable
_LEAST_PROBED = 32  # one in so many lists is scanned under a filter: it may let through what is unlike the query


@dataclass(frozen=True)
class Scanned:
    """Rows of shards by query: scores, numbers of shards and rows in them, (n, f) each. ``hidden`` (n,): the best possible
    score of a row that was not fetched; ``more`` (n,): whether one was scanned and not fetched; ``everything``: none is left.
    """

    scores: np.ndarray
    shards: np.ndarray
    rows: np.ndarray
    hidden: np.ndarray
    more: np.ndarray
    everything: bool

    @staticmethod
    def join(parts: Sequence["Scanned"]) -> "Scanned":
        """Of some shards after the other."""
        scores, shards, rows = (
            np.concatenate([getattr(p, name) for p in parts], axis=1) for name in ("scores", "shards", "rows")
        )
        hidden, more = (np.stack([getattr(p, name) for p in parts]).max(axis=0) for name in ("hidden", "more"))
        return Scanned(scores, shards, rows, hidden, more, all(p.everything for p in parts))


Scanner = Callable[[np.ndarray, int, float, list[tuple[int, ...]]], Scanned]


def scan(
    shards: Sequence[Shard],
    templates: Mapping[str, Template],
    unit_ND: np.ndarray,
    fetch: int,
    effort: float,
    parts: list[tuple[int, ...]],
    only: Within,
) -> Scanned:
    """What is fetched of these parts of the shards: ``fetch`` rows of each, before anything is left out."""
    columns, hidden = [], []
    inner: dict[str, np.ndarray] = {}
    lists: dict[str, tuple | None] = {}
    everything, more, numbers = True, np.zeros(len(unit_ND), bool), [i for part in parts for i in part]
    for part in parts:
        number = part[0]
        shard = shards[number]
        name = shard.info.template
        template = templates[name]
        spec = template.spec
        reach = sum(only.in_reach(i, shards[i], spec) for i in part)
        if name not in inner:
            inner[name] = template.inner(unit_ND)
        if part in only.few:
            few, size = only.rows(part, spec, shards), min(fetch, reach)
            scores, places = few.nearest(inner[name], size)
            columns.append((np.round(scores, _DECIMALS), few.shard_M[places], few.row_M[places]))
            everything &= size == reach
            left = np.full(len(unit_ND), size < reach)
            hidden.append(np.where(left, columns[-1][0].min(axis=1) + NOISE, -np.inf))
            more |= left
            continue
        if name not in lists:
            num, probed = spec.num_lists, max(1, spec.nprobe)
            alike = [i for i in numbers if shards[i].info.template == name and not only.is_few(i)]
            if only.filtered and num:
                share = max(probed / num, 1 / _LEAST_PROBED) * effort
                rows_SL = np.stack([only.rows_of_lists(i, num, shards[i].codes.base) for i in alike])
                lists[name] = holding_lists(template, inner[name], rows_SL.sum(axis=0), share)
            else:
                lists[name] = nearest_lists(template, inner[name], math.ceil(probed * effort))
        size = min(fetch * spec.k_factor, reach)
        chosen = only.selectors[number] if spec.can_filter else None
        scores, rows = search_codes(spec, shard.codes, inner[name], size, lists[name], effort, chosen)
        real = rows >= 0
        if spec.refine:
            of, at = np.nonzero(real)
            scores = scores.copy()
            scores[of, at] = rerank(shard.codes, inner[name], of, rows[of, at])
        scores = np.round(np.where(real, scores, -np.inf), _DECIMALS)
        columns.append((scores, np.full(rows.shape, number, np.int32), rows))
        fetched_all = size == reach
        everything &= fetched_all and effort >= spec.most_effort(shard.info.num_rows)
        left = real[:, -1] & (not fetched_all)
        more |= left
        # re-ranked scores bound nothing: what was not fetched counts only if hits are lacking
        hidden.append(np.where(left & (not spec.refine), scores[:, -1], -np.inf))
    scores, of_shards, rows = (np.concatenate(c, axis=1) for c in zip(*columns, strict=True))
    return Scanned(scores, of_shards, rows, np.max(hidden, axis=0), more, everything)
