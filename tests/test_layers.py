# SPDX-License-Identifier: Apache-2.0
"""The shape of the code: who imports whom, what `__init__.py` may do, how long a file may be."""

import ast
import importlib
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import gradtx

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gradtx"
LONGEST_FILE = 400
SPDX = "# SPDX-License-Identifier: Apache-2.0"

# From the lowest to the highest. A module imports from its own package and from lower rows, never from its own row.
LAYERS = [
    ["core", "_version", "_front"],
    ["numerics"],
    ["tree"],
    ["schedules"],
    ["wrappers"],
    ["transforms"],
    ["optimizers"],
    ["aggregating", "_roles", "losses", "projections", "perturbations", "assignment", "microbatching", "curvature"],
    ["_groups", "_minimize"],
    ["recipes"],
    ["surgery"],
    ["precision"],
    ["sharding"],
    ["describing", "configuration"],
    ["states", "results", "typing", "skipping", "testing", "plot"],
    ["compat", "verify", "race"],
]
HEIGHT = {name: height for height, row in enumerate(LAYERS) for name in row}

EVERYWHERE = {"jax", "numpy"}
FOR_TYPE_CHECKERS = {"typing_extensions"}
"""They know it, and nothing imports it."""
IN_ONE_PLACE = {"plot": {"matplotlib"}}
INSIDE_FUNCTIONS = {
    "core": {"treescope"},
    "describing": {"rich"},
    "compat": {"optax"},
    "plot": {"matplotlib"},
    "race": {"rich", "tqdm", "sklearn", "PIL"},
}


class Import(NamedTuple):
    module: str  # the full dotted name, of what `from a import b` binds: a.b
    line: int
    in_function: bool


def modules() -> list[Path]:
    """All modules of gradtx except the top `__init__.py`."""
    return [p for p in sorted(PACKAGE.rglob("*.py")) if p != PACKAGE / "__init__.py"]


def part_of(path: Path) -> str:
    """The row entry that a module belongs to: `gradtx/core/_lift.py` is of core, `gradtx/states.py` of states."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(source: str, package: str) -> Iterator[Import]:
    """Every import of a module that lies in `package`, relative ones resolved, those inside functions included."""

    def visit(node: ast.AST, in_function: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, in_function)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - (node.level - 1)] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", node.lineno, in_function)
        in_function |= isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, in_function)

    return visit(ast.parse(source), False)


def faults(part: str, source: str, package: str) -> list[str]:
    """What the imports of one module do wrong, as sentences."""
    found = []
    for module, line, in_function in imports(source, package):
        top, *rest = module.split(".")
        if top != "gradtx":
            allowed = EVERYWHERE | FOR_TYPE_CHECKERS | IN_ONE_PLACE.get(part, set())
            if in_function:
                allowed = allowed | INSIDE_FUNCTIONS.get(part, set())
            if top not in sys.stdlib_module_names and top not in allowed:
                found.append(f"line {line}: imports {top}, which users need not have installed")
        elif not rest or rest[0] not in HEIGHT:
            found.append(f"line {line}: imports {module}; import from the module that defines it")
        elif rest[0] != part and HEIGHT[rest[0]] >= HEIGHT[part]:
            found.append(f"line {line}: {part} imports {module}, which is not below it")
    return found


def package_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).parent.parts)


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", modules(), ids=named)
def test_imports_go_down(path: Path):
    assert part_of(path) in HEIGHT, f"{named(path)} is in no row of LAYERS: give it one"
    assert faults(part_of(path), path.read_text(), package_of(path)) == []


@pytest.mark.parametrize(
    ("part", "source", "fault"),
    [
        ("core", "from gradtx.core._lift import Rule\nimport jax.numpy as jnp, functools", None),
        ("core", "from gradtx.tree import add", "core imports gradtx.tree.add, which is not below it"),
        ("core", "def f():\n    from gradtx import tree", "core imports gradtx.tree, which is not below it"),
        ("core", "from ..tree import add", "core imports gradtx.tree.add, which is not below it"),
        ("core", "from . import lift", None),
        ("_roles", "import gradtx.precision", "_roles imports gradtx.precision, which is not below it"),
        ("optimizers", "from gradtx import adam", "imports gradtx.adam; import from the module that defines it"),
        ("optimizers", "import gradtx", "imports gradtx; import from the module that defines it"),
        ("core", "import optax", "imports optax, which users need not have installed"),
        ("describing", "import rich", "imports rich, which users need not have installed"),
        ("describing", "def f():\n    import rich.table", None),
        ("compat", "import optax", "imports optax, which users need not have installed"),
        ("compat", "def f():\n    import optax", None),
        ("compat", "from gradtx.compat.optax import tree as tree", None),
        ("plot", "from gradtx.compat import as_optax", "plot imports gradtx.compat.as_optax, which is not below it"),
        ("plot", "import matplotlib.pyplot as plt", None),
        ("describing", "def f():\n    import matplotlib", "imports matplotlib, which users need not have installed"),
    ],
)
def test_the_import_check_itself(part: str, source: str, fault: str | None):
    found = faults(part, source, "gradtx.core")
    assert [f.partition(": ")[2] for f in found] == ([] if fault is None else [fault])


def re_exports(path: Path) -> list[Path]:
    """The modules that only re-export: packages, and namespaces that are a file."""
    return [p for p in path.rglob("*.py") if not p.name.startswith("_") or p.name == "__init__.py"]


@pytest.mark.parametrize("path", sorted(re_exports(PACKAGE)), ids=named)
def test_namespaces_only_re_export(path: Path):
    docstring, *rest = ast.parse(path.read_text()).body
    assert isinstance(docstring, ast.Expr) and isinstance(docstring.value, ast.Constant), "begin with a docstring"
    if "compat" in path.parts:  # Optax's other names for what has one
        return
    if path == PACKAGE / "__init__.py":  # what loads on first use is imported for type checkers only
        *rest, lazy = rest
        assert isinstance(lazy, ast.If) and ast.unparse(lazy.test) == "TYPE_CHECKING"
        rest += [*lazy.body, *lazy.orelse]
    for node in rest:
        assert isinstance(node, ast.ImportFrom) and node.level == 0, f"line {node.lineno}: from gradtx.x import a as a"
        assert f"{node.module}.".startswith(("gradtx.", "typing.")), f"line {node.lineno}: only names of gradtx"
        if node.module != "typing":
            assert [a.asname for a in node.names] == [a.name for a in node.names], f"line {node.lineno}: a as a"


def test_modules_are_not_hidden_by_what_is_in_them():
    """`import gradtx.a.b` gives the module: no name of a package is that of a module in it."""
    shadowed = []
    for module in pkgutil.walk_packages(gradtx.__path__, "gradtx."):
        parent, _, name = module.name.rpartition(".")
        found = getattr(importlib.import_module(parent), name, None)  # None: it is not loaded yet, as `gradtx.verify`
        if found is not None and found is not importlib.import_module(module.name):
            shadowed.append(module.name)
    assert shadowed == []


def test_no_file_is_too_long():
    # An __init__ is a list of names, which nobody reads from top to bottom.
    files = [p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py"]
    lengths = {named(p): len(p.read_text().splitlines()) for p in files}
    assert {name: n for name, n in lengths.items() if n > LONGEST_FILE} == {}


def test_no_two_classes_or_files_have_one_name():
    """A name in an error, a traceback or a search means one thing."""
    paths = [p for p in modules() if p.name not in ("__init__.py", "__main__.py")]
    classes = [n.name for p in paths for n in ast.walk(ast.parse(p.read_text())) if isinstance(n, ast.ClassDef)]
    for names in (classes, [p.name for p in paths]):
        assert sorted({n for n in names if names.count(n) > 1}) == []


def test_dependencies_are_imported():
    """What gradtx declares, gradtx imports; what an extra declares, tests, examples or docs do, tools aside."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    folders = {
        "": ("gradtx",),
        "examples": ("examples",),
        "plot": ("gradtx/plot",),
        "race": ("gradtx/race", "gradtx/plot"),
        "test": ("tests", "examples"),
        "torch": ("tests",),
    }
    for extra, places in folders.items():
        declared = project["optional-dependencies"][extra] if extra else project["dependencies"]
        imported = {
            i.module.split(".")[0] for p in places for f in (ROOT / p).rglob("*.py") for i in imports(f.read_text(), "")
        }
        names = {re.split(r"[\[=<>~]", d)[0].lower() for d in declared} - {"pytest-xdist"}  # a plugin of pytest
        modules_of = {"scikit-learn": "sklearn", "orbax-checkpoint": "orbax", "pyyaml": "yaml"}
        assert {n for n in names if modules_of.get(n, n) not in imported} == set(), extra


def test_every_file_names_its_license():
    files = [p for folder in ("gradtx", "tests", "examples", "docs") for p in sorted((ROOT / folder).rglob("*.py"))]
    assert [named(p) for p in files if not p.read_text().startswith(SPDX + "\n")] == []


def test_importing_is_light():
    """No other library is loaded, and no backend is made: the number of devices can still be chosen."""
    script = """
import sys
import gradtx
import gradtx.compat.optax
import jax
heavy = {"optax", "flax", "equinox", "matplotlib", "rich", "sklearn"} & set(sys.modules)
assert not heavy, f"importing gradtx imports {sorted(heavy)}"
jax.config.update("jax_num_cpu_devices", 3)
assert jax.device_count() == 3
"""
    environment = {n: v for n, v in os.environ.items() if n != "XLA_FLAGS"} | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
