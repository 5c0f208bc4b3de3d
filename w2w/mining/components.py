"""What hangs together: connected components of a graph of millions of edges."""

import numpy as np


def components(num_nodes: int, a_E: np.ndarray, b_E: np.ndarray, root_N: np.ndarray | None = None) -> np.ndarray:
    """int64 (num_nodes,): the smallest node of each node's component, edges being ``a_E[i]`` to ``b_E[i]``. ``root_N``: what
    earlier edges gave, for edges that come a part at a time.

    Roots hook onto the smallest root beside them, then every path is shortened to its root (Shiloach and Vishkin 1982): each
    round leaves at most half of the roots that still have a neighbour. 24 bytes an edge and 16 a node.
    """
    root = np.arange(num_nodes) if root_N is None else root_N.copy()
    a_E, b_E = np.asarray(a_E, np.int64), np.asarray(b_E, np.int64)
    while True:
        a, b = root[a_E], root[b_E]
        apart = a != b
        if not apart.any():
            return root
        a_E, b_E, a, b = a_E[apart], b_E[apart], a[apart], b[apart]
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(shorter := root[root], root):
            root = shorter


def sizes(root_N: np.ndarray, counted_N: np.ndarray | None = None) -> np.ndarray:
    """int64 (N,): how many nodes of each node's component are counted (default: all)."""
    return np.bincount(root_N, counted_N, minlength=len(root_N)).astype(np.int64)[root_N]
