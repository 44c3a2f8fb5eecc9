# SPDX-License-Identifier: Apache-2.0
"""Which extra arguments the `update` of a transformation must be given."""

from collections.abc import Iterable
from typing import Any

import jax

from gradtx.core._transformation import (
    GradientTransformation,
    check_transformation,
    is_transformation,
    required_arguments,
)


def needs(tx: Any) -> frozenset[str]:
    """The names of the extra arguments without which `update` is an error, such as {"value"}.

    They are declared: by the rule of a stage (`per_parameter(..., needs=...)`), by the pair that a wrapper returns
    (`GradientTransformationExtraArgs(..., needs=...)`), or by the signature of `update`, where they are keyword
    arguments without a default. A recipe, a chain or a wrapper that declares nothing needs what the transformations
    among its arguments need.
    """
    return frozenset(requirements(check_transformation("needs: tx", tx)))


def requirements(tx: Any) -> dict[str, str]:
    """The needed arguments, each with the name of the first stage that needs it."""
    if not isinstance(tx, GradientTransformation):
        return {n: _name(tx) for n in required_arguments(tx.update)}
    stage = tx.expanded
    if (declared := stage.declared) is not None:
        return {n: _name(stage) for n in declared}
    return all_requirements(jax.tree.leaves(dict(stage.arguments), is_leaf=is_transformation))


def all_requirements(parts: Iterable[Any]) -> dict[str, str]:
    """The requirements of all transformations among some objects."""
    found: dict[str, str] = {}
    for part in filter(is_transformation, parts):
        found |= {n: stage for n, stage in requirements(part).items() if n not in found}
    return found


def check_needs(needed: dict[str, str], extra: dict[str, Any]) -> None:
    """An error that names every requirement that is not met and who has it."""
    missing = {n: stage for n, stage in needed.items() if extra.get(n) is None}
    if missing:
        stages = dict.fromkeys(missing.values())
        who = "; ".join(f"{s}: update needs {', '.join(n for n in missing if missing[n] == s)}" for s in stages)
        raise ValueError(f"{who}: call update(updates, state, params, {', '.join(f'{n}=...' for n in missing)})")


def _name(tx: Any) -> str:
    factory = tx.factory if isinstance(tx, GradientTransformation) else None
    if factory is not None:
        return factory.name
    return getattr(tx.update, "__qualname__", type(tx).__name__).partition(".<locals>")[0]
