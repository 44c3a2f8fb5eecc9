# SPDX-License-Identifier: Apache-2.0
"""What a random optimizer in the middle of its life is asked: that it answers, and that the answers are true."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx as gt
from gradtx.testing._compare import finite, require, same_types
from support.compositions import NAMES, NAMESPACE

Question = Callable[[Any, Any, Any, Any, dict[str, Any]], None]
"""Of a transformation, its state and parameters, and the gradients and extra arguments of a step that may come."""


def described(tx: Any, state: Any, params: Any, *_: Any) -> None:
    table = gt.describe(tx, params, state)
    shapes = [jnp.shape(x) for x in jax.tree.leaves(params)]
    require([p.shape for p in table.parameters] == shapes, "describe has a row for each parameter")
    path = table.parameters[-1].path
    found = gt.explain_path(tx, params, "" if path == "(root)" else path, state)
    require(path in str(found).splitlines()[0] and path in str(table), "they say of which parameter they speak")


def measured(tx: Any, state: Any, *_: Any) -> None:
    for name, value in gt.metrics(state, tx).items():
        require(jnp.ndim(value) == 0, f"metrics are scalars: {name} has shape {jnp.shape(value)}")


def evaluated(tx: Any, state: Any, params: Any, *_: Any) -> None:
    found = gt.eval_params(state, params)
    same_types("eval_params", found, "the parameters", params)
    finite("eval_params", found)


def explained(tx: Any, state: Any, params: Any, gradients: Any, extra: dict[str, Any]) -> None:
    found = gt.explain_update(tx, gradients, state, params, **extra).rows[0].norm_out
    want = gt.global_norm(tx.update(gradients, state, params, **extra)[0])
    require(np.allclose(found, want, rtol=1e-2, atol=1e-6), f"explain_update says the norm {found} of what is {want}")


def rebuilt(tx: Any, *_: Any) -> None:
    """From what it prints, by Python and by the parser, and from its configuration."""
    require(hash(tx) == hash(tx.replace()) and tx == tx.replace(), "a value equals its copy")
    require(eval(repr(tx), dict(NAMESPACE)) == tx, f"{tx!r} is the call for Python")
    require(gt.from_string(repr(tx), names=NAMES) == tx, f"{tx!r} is the call for from_string")
    require(gt.from_dict(gt.to_dict(tx, names=NAMES), names=NAMES) == tx, "to_dict is the call")


QUESTIONS: tuple[Question, ...] = (described, measured, evaluated, explained, rebuilt)
