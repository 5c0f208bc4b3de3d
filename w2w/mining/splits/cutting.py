"""Cutting a graph that is too large for one split so that few edges are lost; split shares refer to the edges kept."""

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import pyarrow as pa

from w2w import ids

_SWEEPS = 30
_NOISE, _LEAST_NOISE = 0.5, 0.01  # relative to a node's share of edges; the minimum breaks ties
_QUIET = 0.2  # share of the sweeps, the last ones, with minimum noise
_PRICINGS, _FIRST_STEP, _SLOWER = 20, 0.5, 0.9
_CORRECTED = 0.5  # exponent by which a split that keeps too few edges raises its target
_PRICED = 16_384  # nodes from which prices are computed
_AT_ONCE = 65_536

Edges = Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]  # the same edges at every call, in batches


def cut_edges(label_N: np.ndarray, hash_N: np.ndarray, side_N: np.ndarray, edges: Edges, wanted: np.ndarray) -> None:
    """Changes ``label_N`` (int8), the split of each node, so that few edges cross splits and the kept ones are distributed by
    ``wanted`` (K shares). Nodes without an edge keep their split; nodes of ``side_N`` follow one of their edges.

    Label propagation under a price per split (Raghavan, Albert and Kumara 2007; balanced: Ugander and Backstrom 2013): each
    node moves to where most of its edges lead, first the nodes of one side, then those of the other, as neighbours that move
    together would only swap. Fading noise, drawn from hashes, escapes the first local optimum. Memory: 20 bytes per node.
    """
    wanted = wanted / wanted.sum()
    aim = wanted.copy()
    for sweep in range(_SWEEPS + 1):
        noise = max(_LEAST_NOISE, _NOISE * (1 - sweep / ((1 - _QUIET) * _SWEEPS)))
        for side in (True, False):
            last = sweep == _SWEEPS  # only nodes of ``side_N``, each of which then keeps an edge
            votes_NK = _votes(label_N, side_N, edges, side, len(wanted))
            nodes = np.flatnonzero(votes_NK.any(1))
            if not len(nodes):
                continue
            draw = ids.hash_keys(pa.array([f"{sweep}:{side}:{k}" for k in range(len(wanted))]))
            scores = partial(_scores, votes_NK, hash_N, draw, noise, aim, last)
            sample = nodes[:: -(-len(nodes) // _PRICED)]
            price = _prices(scores(sample), votes_NK[sample].sum(1), aim)
            for i in range(0, len(nodes), _AT_ONCE):
                some = nodes[i : i + _AT_ONCE]
                label_N[some] = (scores(some) - price).argmax(1)
            if last:
                return
            if side:
                kept = np.bincount(label_N[nodes], votes_NK[nodes, label_N[nodes]], minlength=len(wanted))
                kept = kept / max(1.0, kept.sum())
                aim *= (wanted / np.maximum(np.maximum(kept, wanted / 4), 1e-9)) ** _CORRECTED
                aim /= aim.sum()


def _votes(label_N: np.ndarray, side_N: np.ndarray, edges: Edges, side: bool, num_splits: int) -> np.ndarray:
    """int32 (N, K): number of each node's edges that lead to each split."""
    votes_NK = np.zeros((len(label_N), num_splits), np.int32)
    for a, b in edges():
        for one, other in ((a, b), (b, a)):
            mine = side_N[one] == side
            np.add.at(votes_NK, (one[mine], label_N[other[mine]]), 1)
    return votes_NK


def _scores(
    votes_NK: np.ndarray, hash_N: np.ndarray, draw_K: np.ndarray, noise: float, aim: np.ndarray, keep: bool, nodes: np.ndarray
) -> np.ndarray:
    """float32 (M, K): the share of a node's edges that lead to a split, plus noise. ``keep``: not to one without an edge."""
    votes_MK = votes_NK[nodes]
    scores = votes_MK / votes_MK.sum(1, keepdims=True, dtype=np.float32)
    scores += np.float32(noise / 2.0**64) * ids.scatter(hash_N[nodes, None] ^ draw_K).astype(np.float32)
    never = (votes_MK == 0) if keep else (aim == 0)[None]
    return np.where(never, np.float32(-1e9), scores)


def _prices(scores_MK: np.ndarray, edges_M: np.ndarray, aim: np.ndarray) -> np.ndarray:
    """float32 (K,): subtracted from the scores, so that nodes with these shares of the edges go to each split."""
    price, step = np.zeros(len(aim)), _FIRST_STEP
    for _ in range(_PRICINGS):
        chosen = (scores_MK - price.astype(np.float32)).argmax(1)
        price += step * (np.bincount(chosen, edges_M, minlength=len(aim)) / edges_M.sum() - aim)
        step *= _SLOWER
    return price.astype(np.float32)
