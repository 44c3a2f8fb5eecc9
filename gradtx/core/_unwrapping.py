# SPDX-License-Identifier: Apache-2.0
"""Trees without what frameworks and roles wrap around arrays and dictionaries."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import jax

from gradtx.core._roles import is_box
from gradtx.core._selectors import is_carrier


def unwrapped(tree: Any) -> Any:
    """The tree as arrays in plain containers, its leaves in the same order.

    Boxes of roles and of Flax's linen, and the variables of its nnx, are replaced by what they hold. Mappings of other
    kinds, such as a `FrozenDict` or an `nnx.State`, become dictionaries. To wrap the leaves again, unflatten them with
    the structure of the tree.
    """
    return jax.tree.map(_unwrapped, tree, is_leaf=_is_wrapper)


def children(node: Any) -> list[tuple[Any, Any]]:
    """The keys and values one step below."""
    found = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)[0]
    return [(path[0], child) for path, child in found]


def _is_wrapper(x: Any) -> bool:
    return is_box(x) or is_carrier(x) or isinstance(x, Mapping) and not isinstance(x, dict)


def _unwrapped(x: Any) -> Any:
    if not _is_wrapper(x) or jax.tree_util.all_leaves([x]):
        return x
    below = [(key, unwrapped(child)) for key, child in children(x)]
    if not isinstance(x, Mapping):
        return below[0][1]
    found = {key.key: child for key, child in below}
    return found if list(found) == sorted(found) else OrderedDict(found)  # JAX sorts the keys of a dictionary
