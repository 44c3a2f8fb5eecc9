# SPDX-License-Identifier: Apache-2.0
"""The extra arguments that the `update` of a transformation must be given."""

from collections.abc import Iterable
from typing import Any

from gradtx.core._nesting import inside
from gradtx.core._transformation import (
    GradientTransformation,
    check_transformation,
    required_arguments,
)


def needs(tx: Any) -> frozenset[str]:
    """The names of the extra arguments that `update` cannot do without, such as {"value"}.

    They are declared by the rule of a stage (`per_parameter(..., needs=...)`), by the pair that a wrapper returns
    (`GradientTransformationExtraArgs(..., needs=...)`), or by the signature of `update`, as keyword arguments without a
    default. A recipe, chain or wrapper that declares nothing needs what the transformations among its arguments need.

    Args:
      tx: any object with `init` and `update`.
    """
    return frozenset(requirements(check_transformation("needs: tx", tx)))


def requirements(tx: Any) -> dict[str, str]:
    """The needed arguments, each with the name of the first stage that needs it."""
    if not isinstance(tx, GradientTransformation):
        return {n: _name(tx) for n in required_arguments(tx.update)}
    stage = tx.expanded
    if (declared := stage.declared) is not None:
        return {n: _name(stage) for n in declared}
    return all_requirements(child for _, child in inside(stage.arguments))


def all_requirements(txs: Iterable[Any]) -> dict[str, str]:
    """The requirements of several transformations."""
    found: dict[str, str] = {}
    for tx in txs:
        found |= {n: stage for n, stage in requirements(tx).items() if n not in found}
    return found


def check_needs(needed: dict[str, str], extra: dict[str, Any]) -> None:
    """Raises an error if arguments are missing, which names each of them and the stage that needs it."""
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
