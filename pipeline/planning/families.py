"""Which posts belong together: families by their parents, and families by their characters."""

import numpy as np
from numpy.typing import NDArray

from pipeline.records import split_tags


def find_families(post_ids: NDArray[np.int64], parent_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return each post's family: the lowest id among all posts that parents tie together.

    Args:
        post_ids: int64, N.
        parent_ids: int64, N; 0 for no parent. A parent need not be among the posts.
    """
    has_parent = parent_ids > 0
    nodes, index = np.unique(
        np.concatenate([post_ids, parent_ids[has_parent]]), return_inverse=True
    )
    child, parent = index[: len(post_ids)][has_parent], index[len(post_ids) :]
    return nodes[_lowest_tied(len(nodes), child, parent)[index[: len(post_ids)]]]


def join_characters(families: NDArray[np.int64], characters: list[str]) -> NDArray[np.int64]:
    """Return families widened to characters: the lowest family among all that characters tie.

    A post of several characters ties these together.

    Args:
        families: int64, N; see ``find_families``.
        characters: of each post, its character tags with spaces between them.
    """
    nodes, index = np.unique(families, return_inverse=True)
    first: dict[str, int] = {}
    ties = [
        (int(node), first.setdefault(name, int(node)))
        for node, names in zip(index, characters, strict=True)
        for name in split_tags(names)
    ]
    a, b = np.array(ties, dtype=np.int64).reshape(-1, 2).T
    return nodes[_lowest_tied(len(nodes), a, b)[index]]


def _lowest_tied(num_nodes: int, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each node the lowest one that a chain of ties (a[i], b[i]) leads to."""
    label = np.arange(num_nodes)
    while True:
        lowest = np.minimum(label[a], label[b])
        lower = label.copy()
        np.minimum.at(lower, a, lowest)
        np.minimum.at(lower, b, lowest)
        lower = lower[lower]
        if np.array_equal(lower, label):
            return label
        label = lower
