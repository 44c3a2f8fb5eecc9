# SPDX-License-Identifier: Apache-2.0
"""What `gradtx` answers for a name that is not in it: a namespace that loads on first use, or where the name is."""

import importlib
import sys
from types import ModuleType
from typing import Any

TOOLS = ("compat", "plot", "race", "testing")
"""The namespaces of what is no part of a transformation."""
LAZY = (
    "aggregating",
    "assignment",
    "curvature",
    "losses",
    "microbatching",
    "perturbations",
    "projections",
    "recipes",
    "results",
    "skipping",
    "states",
    "typing",
    *TOOLS,
)
"""The namespaces that load on first use, as nothing at the top level needs them."""


def __getattr__(name: str) -> Any:
    if name in LAZY:
        return importlib.import_module(f"gradtx.{name}")
    if name.startswith("_"):
        raise AttributeError(f"module 'gradtx' has no attribute {name!r}")
    found = _meant(name)
    raise AttributeError(f"module 'gradtx' has no attribute {name!r}" + (f": it is {found}" if found else ""))


def __dir__() -> list[str]:
    return sorted({*public(sys.modules["gradtx"]), *_loaded(), *LAZY})


def namespaces() -> dict[str, ModuleType]:
    """The public namespaces in `gradtx`, loaded, without the tools."""
    found = {n: importlib.import_module(f"gradtx.{n}") for n in LAZY if n not in TOOLS} | _loaded()
    # Sorted, as the order in which they were loaded says nothing.
    return {n: found[n] for n in sorted(found) if n not in TOOLS}


def _loaded() -> dict[str, ModuleType]:
    modules = {n: x for n, x in vars(sys.modules["gradtx"]).items() if isinstance(x, ModuleType)}
    return {n: x for n, x in modules.items() if not n.startswith("_") and public(x)}


def public(module: ModuleType) -> dict[str, Any]:
    """The public names of a module that are no modules, without the flag `TYPE_CHECKING`."""
    return {n: x for n, x in vars(module).items() if not n.startswith("_") and not isinstance(x, ModuleType | bool)}


def _meant(name: str) -> str | None:
    """The public path of what somebody means by a name: one of another namespace, of Optax, or of PyTorch and Keras."""
    root = sys.modules["gradtx"]
    for place, module in {"gradtx": root, **{f"gradtx.{n}": m for n, m in namespaces().items()}}.items():
        if name in public(module):
            return f"{place}.{name}"
    optax = importlib.import_module("gradtx.compat.optax")
    for module in (optax, *(x for x in vars(optax).values() if isinstance(x, ModuleType))):
        if name in vars(module):
            same = [n for n, x in public(root).items() if x is vars(module)[name]]
            return f"gradtx.{same[0]}" if same else f"{module.__name__}.{name}"
    folded = {n.lower(): n for n in public(root)}
    return f"gradtx.{folded[name.lower()]}" if name.lower() in folded else None
