# SPDX-License-Identifier: Apache-2.0
"""Names that Optax has left and still answers: here they work too, and say what to write instead."""

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import gradtx.tree as tree
from gradtx.optimizers._dpsgd import dpsgd
from gradtx.transforms._privacy import DifferentiallyPrivateAggregateState, differentially_private_aggregate

# By module: the name, what it stands for, and how that is written now.
_NAMES: dict[str, dict[str, tuple[Any, str]]] = {
    "optax": {
        "dpsgd": (dpsgd, "contrib.dpsgd"),
        "differentially_private_aggregate": (
            differentially_private_aggregate,
            "contrib.differentially_private_aggregate",
        ),
        "DifferentiallyPrivateAggregateState": (
            DifferentiallyPrivateAggregateState,
            "contrib.DifferentiallyPrivateAggregateState",
        ),
    },
    "optax.tree_utils": {
        "tree_scalar_mul": (tree.scale, "tree.scale"),
        "tree_add_scalar_mul": (tree.add_scale, "tree.add_scale"),
        "tree_l1_norm": (functools.partial(tree.norm, ord=1), "tree.norm(x, ord=1)"),
        "tree_l2_norm": (tree.norm, "tree.norm"),
        "tree_linf_norm": (functools.partial(tree.norm, ord=math.inf), "tree.norm(x, ord=inf)"),
    },
}


def deprecated_names(module: str) -> Callable[[str], Any]:
    """The `__getattr__` of a module of `gradtx.compat`, named as in Optax."""

    def answer(name: str) -> Any:
        if name not in _NAMES[module]:
            raise AttributeError(f"module 'gradtx.compat.{module}' has no attribute {name!r}")
        found, now = _NAMES[module][name]
        warnings.warn(f"{module}.{name} is deprecated: use optax.{now}", DeprecationWarning, stacklevel=2)
        return found

    return answer
