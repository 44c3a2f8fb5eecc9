# SPDX-License-Identifier: Apache-2.0
"""Writes the API reference out of the `__init__.py` files, so that a new public name is documented by being exported.

In a page, a line `@names gradtx.transforms` becomes the public names that are defined in that room, or that the
namespace exports, a section for each module, headed by the first line of its docstring. A name belongs to the most
specific of all such lines. Arguments that a docstring leaves to the page of words are listed below it with a link.
"""

import ast
import functools
import re
import sys
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]  # not docs/, whose formulas.py is not that of the tests

from docs.calls import EXAMPLES  # noqa: E402  # behind the path

PAGES = ROOT / "docs" / "api"
WORDS = PAGES / "index.md"
ASK = re.compile(r"^@names (\S+)$", re.MULTILINE)

# What examples give for arguments that have no default.
NUMBERS = {"learning_rate": "1e-3", "max_norm": "1.0", "seed": "0", "decay": "0.9"}


class Name(NamedTuple):
    """A public name: where it is defined, and the path that users type."""

    module: str
    path: str

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]


def source(module: str) -> str:
    path = ROOT / Path(*module.split("."))
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()


@functools.cache
def public() -> list[Name]:
    """All public names, those of `gradtx.compat.optax` aside."""
    found, root = [], ast.parse(source("gradtx"))
    imports = [node for node in ast.walk(root) if isinstance(node, ast.ImportFrom)]
    for node in imports:
        for alias in node.names:
            if node.module == "gradtx":
                found += _exports(f"gradtx.{alias.name}")
            elif not alias.name.startswith("_") and str(node.module).startswith("gradtx."):
                found.append(Name(str(node.module), f"gradtx.{alias.name}"))
    return found


def _exports(namespace: str) -> list[Name]:
    nodes = [node for node in ast.parse(source(namespace)).body if isinstance(node, ast.ImportFrom)]
    return [Name(str(node.module), f"{namespace}.{a.name}") for node in nodes for a in node.names if a.name != "optax"]


@functools.cache
def asked() -> dict[str, str]:
    """The rooms and namespaces that pages ask for, with the page."""
    return {ask: page.name for page in sorted(PAGES.glob("*.md")) for ask in ASK.findall(page.read_text())}


def claimed_by(name: Name) -> str | None:
    """Which of the asked places has a name: its namespace, or the closest room above the module."""
    namespace = name.path.rpartition(".")[0]
    room = namespace if namespace != "gradtx" else name.module
    return max((a for a in asked() if f"{room}.".startswith(f"{a}.")), key=len, default=None)


def places() -> dict[str, str]:
    """The page and anchor of each public name in the reference, by the name itself."""
    return {n.name: f"{asked()[ask]}#{n.path}" for n in reversed(public()) if (ask := claimed_by(n))}


def heading(module: str) -> str:
    """The first line of a docstring, what follows a colon as text below the heading."""
    first = (ast.get_docstring(ast.parse(source(module))) or module).partition("\n")[0]
    title, _, rest = first.rstrip(".").partition(": ")
    return f"## {title}" + (f"\n\n{rest[0].upper()}{rest[1:]}." if rest else "")


@functools.cache
def words() -> frozenset[str]:
    """The arguments that the page of words explains."""
    rows = re.findall(r"^\| (`[^|]*) \|", WORDS.read_text(), re.MULTILINE)
    return frozenset(name for row in rows for name in re.findall(r"`([a-z]\w*)`", row))


def left_to_words(name: Name) -> list[str]:
    """The arguments of a function that its docstring leaves to the page of words."""
    for node in ast.parse(source(name.module)).body:
        if isinstance(node, ast.FunctionDef) and node.name == name.name:
            described = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)*)", ast.get_docstring(node) or "", re.MULTILINE)
            arguments = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            known = re.findall(r"^ {2}([\w*, ]+):", described[1], re.MULTILINE) if described else []
            lines = {x.strip(" *") for line in known for x in line.split(",")}
            return [a for a in arguments if a in words() and a not in lines]
    return []


@functools.cache
def used() -> dict[str, str]:
    """The first page, in the order of the navigation, of which a block of code calls a name, as a link."""
    paths, found = {n.path for n in public()}, {}
    for page in re.findall(r": ([\w/]+\.md)$", (ROOT / ".mkdocs.yml").read_text(), re.MULTILINE):
        text = (ROOT / "docs" / page).read_text()
        title = text.removeprefix("# ").partition("\n")[0]
        code = "".join(re.findall(r"^```py[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
        imported = re.findall(r"^from (gradtx[.\w]*) import (.*)$", code, re.MULTILINE)
        names = {n.strip(): f"{module}.{n.strip()}" for module, line in imported for n in line.split(",")}
        for called in re.findall(r"(?:(?<![\w.])(?=[\w.]+\()|@)([\w.]+)", code):
            first, _, rest = called.partition(".")
            path = f"{names.get(first, first)}.{rest}".rstrip(".")
            if path in paths:
                found.setdefault(path, f"[{title}](../{page})")
    return found


def call(name: Name) -> str | None:
    """A call of a function as an example: one that is written down, or that of a factory that needs numbers only."""
    if name.path in EXAMPLES:
        return EXAMPLES[name.path]
    for node in ast.parse(source(name.module)).body:
        if isinstance(node, ast.FunctionDef) and node.name == name.name and node.decorator_list:
            arguments = [a.arg for a in node.args.args[: len(node.args.args) - len(node.args.defaults)]]
            needed = [
                a.arg for a, value in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if value is None
            ]
            factory = ast.unparse(node.decorator_list[0]) == "transformation"
            if factory and not node.args.vararg and not needed and set(arguments) <= NUMBERS.keys():
                return f"{name.path}({', '.join(NUMBERS[a] for a in arguments)})"
    return None


def example(name: Name) -> str:
    code, page = call(name), used().get(name.path)
    return (f"\n\n```python\n{code}\n```" if code else "") + (f"\n\nIn use: {page}." if page else "")


def entry(name: Name) -> str:
    left = ", ".join(f"`{a}`" for a in left_to_words(name))
    # A recipe of a run is short, and its code says the most.
    code = "\n    options:\n      show_source: true" if name.path.startswith("gradtx.recipes.") else ""
    return (
        f"::: {name.path}{code}" + example(name) + (f"\n\n[Words used everywhere](index.md): {left}." if left else "")
    )


def section(match: re.Match) -> str:
    ask = match[1]
    names = sorted((n for n in public() if claimed_by(n) == ask), key=lambda n: (n.module, n.path.lower()))
    lines = []
    for module, group in groupby(names, key=lambda n: n.module):
        # What a namespace collects from everywhere has no sections.
        lines += [heading(module)] if f"{module}.".startswith(f"{ask}.") else []
        lines += [entry(n) for n in group]
    return "\n\n".join(lines)


@functools.cache
def targets() -> dict[str, str]:
    """The public paths by what pages call them: with their namespace, or without, where that is clear.

    A name that is also that of an argument, such as `where`, is not.
    """
    nodes = [node for module in {n.module for n in public()} for node in ast.walk(ast.parse(source(module)))]
    functions = [node.args for node in nodes if isinstance(node, ast.FunctionDef)]
    arguments = {a.arg for f in functions for a in (*f.posonlyargs, *f.args, *f.kwonlyargs)}
    found: dict[str, str] = {}
    for path in (n.path for n in public()):
        namespace, _, last = path.rpartition(".")
        found |= {path: path, path.removeprefix("gradtx."): path} if namespace != "gradtx" else {path: path}
        # `max` is hardly that of `gradtx.tree`.
        if last not in arguments and (namespace == "gradtx" or "_" in last):
            found.setdefault(last, path)
    return found
