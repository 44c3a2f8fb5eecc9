# SPDX-License-Identifier: Apache-2.0
"""Example arguments of factories, from their annotations."""

import inspect
import typing
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from gradtx.core._calls import Factory
from gradtx.core._ranges import Floating, Range
from gradtx.core._types import ScalarOrSchedule


def example_arguments(factory: Factory | Callable[..., Any]) -> dict[str, Any]:
    """A valid value for each required parameter of a factory, by name, from the annotations.

    Args:
      factory: a factory such as `gradtx.adam`, or its record in the registry.

    Raises:
      TypeError: for a parameter whose annotation gives no example: a function, a transformation, a tree.
    """
    record = factory if isinstance(factory, Factory) else getattr(factory, "factory", None)
    if not isinstance(record, Factory):
        raise TypeError(f"example_arguments: {factory!r} is not a factory of gradtx, such as gradtx.adam")
    required = [p for p in record.signature.parameters.values() if p.default is inspect.Parameter.empty]
    return {p.name: _example(record, p) for p in required if p.kind is not inspect.Parameter.VAR_KEYWORD}


def _example(record: Factory, parameter: inspect.Parameter) -> Any:
    spec, hint = record.specs.get(parameter.name), record.hints.get(parameter.name)
    if hint == ScalarOrSchedule or "learning_rate" in parameter.name:
        return 0.01
    if isinstance(spec, Range):
        return int(spec.example) if spec.integer else spec.example
    if isinstance(spec, Floating):
        return jnp.dtype(jnp.float32)
    if hint is bool:
        return False
    if typing.get_origin(hint) is typing.Literal:
        return typing.get_args(hint)[0]
    raise TypeError(
        f"example_arguments: {record.name} needs {parameter.name}, for which its annotation {hint} gives no example; "
        f"give the arguments yourself"
    )
