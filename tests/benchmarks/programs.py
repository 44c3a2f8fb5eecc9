# SPDX-License-Identifier: Apache-2.0
"""What can be counted in a program, which is the same on every machine: its size, and the bytes that it moves."""

import re
from collections.abc import Iterator
from typing import Any

import jax

INSTRUCTION = re.compile(r"^\s+(ROOT )?%?[\w.-]+ = ", re.MULTILINE)


def equations(jaxpr: Any) -> int:
    """Of a jaxpr and all inside it. One that is called several times counts once, as it is traced and lowered once."""
    seen: dict[int, Any] = {}

    def visit(jaxpr: Any) -> None:
        inner = getattr(jaxpr, "jaxpr", jaxpr)
        if id(inner) not in seen:
            seen[id(inner)] = inner
            for equation in inner.eqns:
                for value in equation.params.values():
                    for nested in _jaxprs(value):
                        visit(nested)

    visit(jaxpr)
    return sum(len(x.eqns) for x in seen.values())


def _jaxprs(value: Any) -> Iterator[Any]:
    if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
        yield value
    elif isinstance(value, tuple | list):
        for x in value:
            yield from _jaxprs(x)


def operations(compiled: Any) -> int:
    """Instructions of the optimized HLO, those inside fused computations too."""
    return len(INSTRUCTION.findall(compiled.as_text()))


def moved_bytes(compiled: Any) -> float:
    """What the program reads and writes, as XLA counts it: the arguments and results of each fused loop."""
    costs = compiled.cost_analysis()
    return float((costs[0] if isinstance(costs, list) else costs)["bytes accessed"])


def peak_bytes(compiled: Any) -> float:
    """Of arguments, results and what lies between them."""
    memory = compiled.memory_analysis()
    inside = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return float(inside - memory.alias_size_in_bytes)


def floor_bytes(params: Any, state: Any, grads: Any, reads: int = 1) -> int:
    """The least that a step moves: gradients read, so many times, and parameters and state read and written."""
    return reads * size_bytes(grads) + 2 * (size_bytes(params) + size_bytes(state))


def size_bytes(tree: Any) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(tree))
