# SPDX-License-Identifier: Apache-2.0
"""Writes the API reference out of the `__init__.py` files, so that a new public name is documented by being exported.

In a page, a line `@names gradtx.transforms` becomes the public names that are defined in that module or package, a
section for each module, headed by the first line of its docstring. They are the names in `gradtx/__init__.py` and what
the `__init__.py` of the package exports besides, under its own name; of a module that has none there, everything. A
name on no page is a warning.
"""

import ast
import logging
import re
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parent.parent
log = logging.getLogger("mkdocs.hooks.reference")
written: set[str] = set()


def exports(package: str) -> list[tuple[str, str]]:
    """The (module, name) pairs that a package re-exports."""
    imports = [node for node in ast.parse(source(package)).body if isinstance(node, ast.ImportFrom)]
    return [(str(node.module), alias.name) for node in imports for alias in node.names]


def source(module: str) -> str:
    path = ROOT / Path(*module.split("."))
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()


def heading(module: str) -> str:
    """The first line of a docstring, what follows a colon as text below the heading."""
    first = (ast.get_docstring(ast.parse(source(module))) or module).partition("\n")[0]
    title, _, rest = first.rstrip(".").partition(": ")
    return f"## {title}" + (f"\n\n{rest[0].upper()}{rest[1:]}." if rest else "")


def section(match: re.Match) -> str:
    asked = match[1]
    found = [(m, n) for m, n in exports("gradtx") if f"{m}.".startswith(f"{asked}.")]
    written.update(name for _, name in found)
    if not found and not (ROOT / Path(*asked.split("."))).is_dir():
        return f"{heading(asked)}\n\n::: {asked}"
    flat = {name for _, name in found}
    is_package = (ROOT / Path(*asked.split("."))).is_dir()
    own = [(m, n) for m, n in exports(asked) if n not in flat] if is_package else []
    lines = []
    for module, pairs in groupby(sorted([*found, *own]), key=lambda pair: pair[0]):
        names = (f"::: {'gradtx' if name in flat else asked}.{name}" for _, name in pairs)
        lines += [heading(module), *names]
    return "\n\n".join(lines)


def on_page_markdown(markdown: str, **_) -> str:
    return re.sub(r"^@names (\S+)$", section, markdown, flags=re.MULTILINE)


def on_env(env, **_):
    missing = sorted({name for _, name in exports("gradtx")} - written)
    if missing:
        log.warning(f"public names on no page of the reference: {', '.join(missing)}")
    return env
