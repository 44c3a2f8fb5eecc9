# SPDX-License-Identifier: Apache-2.0
"""What is public in gradtx: names, the paths that they have, and what their docstrings say of their arguments."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import gradtx
from gradtx import _front, aggregating, curvature, precision, recipes, schedules, sharding, skipping

ROOT = Path(__file__).parents[2]
NAMES: dict[str, Any] = {
    **{
        n: x
        for room in (sharding, precision, aggregating, curvature, skipping, recipes, schedules, gradtx)
        for n, x in vars(room).items()
    }
}
"""What a value prints as is made of these names: those of the top level, and of namespaces with factories."""
SCHEDULES = {n: NAMES[n] for n in NAMES if getattr(NAMES[n], "__module__", "").startswith("gradtx.schedules._")}
"""Whole schedules, which stand at the top level, and the pieces in their namespace."""
WORDS = ROOT / "docs" / "api" / "index.md"


def namespaces() -> dict[str, ModuleType]:
    """gradtx and its public namespaces by their dotted names, those of `gradtx.compat.optax` aside."""
    lazy = {name: getattr(gradtx, name) for name in _front.LAZY}
    return {"gradtx": gradtx, **{f"gradtx.{n}": m for n, m in sorted({**_front.namespaces(), **lazy}.items())}}


def public_names() -> Iterator[tuple[str, str, Any]]:
    """(namespace, name, object) of everything public that is no module."""
    for place, module in namespaces().items():
        for name, thing in vars(module).items():
            if not name.startswith("_") and not isinstance(thing, ModuleType):
                yield place, name, thing


def words() -> set[str]:
    """The arguments that the page of words explains."""
    rows = re.findall(r"^\| (`[^|]*) \|", WORDS.read_text(), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([a-z]\w*)`", row)}


def described_arguments(docstring: str) -> set[str]:
    """The names that have a line under `Args:`, several of which one line may name: `mu_dtype, nu_dtype: ...`."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)*)", inspect.cleandoc(docstring) + "\n", re.MULTILINE)
    lines = re.findall(r"^ {2}(\*{0,2}[A-Za-z]\w*(?:, ?\*{0,2}\w+)*):", section[1], re.MULTILINE) if section else []
    return {name.strip(" *") for line in lines for name in line.split(",")}


def unexplained(function: Any) -> list[str]:
    """The arguments of a function that neither its docstring nor the page of words explains."""
    known = described_arguments(function.__doc__ or "") | words()
    return [n for n in inspect.signature(function).parameters if n != "self" and n not in known]
