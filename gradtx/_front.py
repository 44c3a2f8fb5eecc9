# SPDX-License-Identifier: Apache-2.0
"""What `gradtx` answers for a name that is not in it: a namespace that loads on first use, or where the name is."""

import importlib
import sys
from types import ModuleType
from typing import Any

LAZY = ("compat", "plot", "race", "testing")


def __getattr__(name: str) -> Any:
    if name in LAZY:
        return importlib.import_module(f"gradtx.{name}")
    if name.startswith("_"):
        raise AttributeError(f"module 'gradtx' has no attribute {name!r}")
    found = _meant(name)
    raise AttributeError(f"module 'gradtx' has no attribute {name!r}" + (f": it is {found}" if found else ""))


def __dir__() -> list[str]:
    return sorted({*public(sys.modules["gradtx"]), *namespaces()})


def namespaces() -> dict[str, ModuleType]:
    """The public namespaces in `gradtx`, those that load on first use only if they are loaded."""
    root = sys.modules["gradtx"]
    modules = {n: x for n, x in vars(root).items() if isinstance(x, ModuleType) and not n.startswith("_")}
    return {n: x for n, x in modules.items() if n in LAZY or public(x)} | {n: root for n in LAZY if n not in modules}


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
