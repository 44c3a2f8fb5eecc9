# SPDX-License-Identifier: Apache-2.0
"""What docs/support.md promises on security: no code is run that data brings along, and nothing is read or written."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import gradtx

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gradtx"

UNSAFE_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "runpy", "code", "ctypes"}
OUTSIDE_MODULES = {"socket", "ssl", "http", "urllib", "requests", "subprocess", "multiprocessing", "tempfile", "shutil"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__", "open", "input", "breakpoint"}
UNSAFE_METHODS = {
    "load_pytree",
    "loads",
    "system",
    "popen",
    "write_text",
    "write_bytes",
    "savefig",
    "mkdir",
    "makedirs",
}
UNSAFE_METHODS |= {"unlink", "rmtree", "tofile", "fromfile", "memmap", "savez", "import_module"}

KNOWN = {
    # What it has pickled itself, in memory, a line before: whether a state survives that is what is tested.
    ("gradtx/testing/_clauses.py", "pickle"),
    ("gradtx/testing/_clauses.py", ".loads"),
    # Namespaces of gradtx itself, by their own names.
    ("gradtx/_front.py", ".import_module"),
    # What the command line names, as `python -m` does.
    ("gradtx/verify/_named_objects.py", ".import_module"),
    ("gradtx/race/_imported.py", ".import_module"),
    # What a race writes where it is told to, and the texts and libraries that it reads.
    ("gradtx/race/_command.py", ".write_text"),
    ("gradtx/race/_picture.py", ".savefig"),
    # The width of the terminal.
    ("gradtx/verify/__main__.py", "shutil"),
}


def unsafe(source: str) -> Iterator[str]:
    """What a module does that could run code out of data, or reach outside of the process."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (n for n in (name.partition(".")[0] for name in names) if n in UNSAFE_MODULES | OUTSIDE_MODULES)
        elif isinstance(node, ast.Name) and node.id in UNSAFE_CALLS:
            yield node.id
        elif isinstance(node, ast.Attribute) and node.attr in UNSAFE_METHODS:
            yield f".{node.attr}"
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            yield "allow_pickle"


def test_no_code_is_made_of_data_and_no_file_is_touched():
    files = {str(p.relative_to(ROOT)): p.read_text() for p in sorted(PACKAGE.rglob("*.py"))}
    found = {(name, what) for name, source in files.items() for what in unsafe(source)}
    assert found == KNOWN


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle", ["pickle"]),
        ("def f():\n    from pickle import loads", ["pickle"]),
        ("import urllib.request as r", ["urllib"]),
        ("x = eval('1')", ["eval"]),
        ("f = exec", ["exec"]),
        ("path.write_text('')", [".write_text"]),
        ("np.load(f, allow_pickle=True)", ["allow_pickle"]),
        ("import ast\nast.literal_eval('1')", []),
        ("jnp.exp(x); re.compile", []),
    ],
)
def test_the_scan_itself(source: str, found: list[str]):
    assert list(unsafe(source)) == found


WATCHED = """
import sys
touched = []

def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC):
            touched.append(f"{event} {path}")
    elif event in ("pickle.find_class", "socket.connect", "subprocess.Popen", "os.system", "os.mkdir", "os.remove",
                   "os.rename", "os.posix_spawn", "os.exec", "os.fork", "shutil.rmtree", "urllib.Request"):
        touched.append(f"{event} {arguments[:2]}")

import os
import jax, jax.numpy as jnp
jax.block_until_ready(jax.jit(jnp.sin)(jnp.ones(3)))  # what JAX itself does at its start is not ours
sys.addaudithook(watch)

import gradtx, gradtx.compat.optax, gradtx.testing, gradtx.verify.__main__
params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
adamw = gradtx.stored(gradtx.adamw(1e-3), gradtx.precision.int8())
tx = gradtx.guard(gradtx.chain(gradtx.clip_by_global_norm(1.0), adamw))
state = tx.init(params)
updates, state = jax.jit(tx.update)(params, state, params)
restored = {"inner_state": {"1": {"inner_state": {"0": {"mu": params}}}}}
gradtx.migrate(restored, tx, params)
str(gradtx.describe(tx, params)), gradtx.metrics(state, tx), gradtx.eval_params(state, params)
gradtx.verify.__main__.named_object("gradtx:chain(clip(1.0), adam(1e-3))")
print(touched)
"""


def test_a_run_touches_nothing(tmp_path: Path):
    """No file is opened for writing, nothing is unpickled, started or connected to, from the import to a report."""
    environment = {n: v for n, v in os.environ.items() if not n.startswith("JAX_COMPILATION_CACHE")}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_versions_are_the_same_everywhere():
    """What pyproject.toml asks for, the page on versions says, and CI tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page, ci = (ROOT / "docs" / "support.md").read_text(), (ROOT / ".ci" / "run").read_text()
    (jax,) = [re.fullmatch(r"jax>=(.+)", d)[1] for d in project["dependencies"] if d.startswith("jax")]
    python = project["requires-python"].removeprefix(">=")
    assert f"Today {jax} and newer" in page and f"Today {python}\n  and newer" in page
    pythons = re.search(r"^for version in (.*); do$", ci, re.MULTILINE)[1].split()
    named = [c.rpartition(" ")[2] for c in project["classifiers"] if "Python :: 3." in c]
    assert sorted(pythons, reverse=True) == pythons == named[::-1] and pythons[-1] == python
    # The oldest JAX is installed where the oldest Python is.
    line = next(x for x in ci.splitlines() if x.startswith("oldest_jax="))
    found = subprocess.run(["bash", "-c", f'{line}; printf "$oldest_jax"'], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout == jax and '"jax==$oldest_jax"' in ci


# A release.

NEWS = (ROOT / "CHANGELOG.md").read_text()
RELEASES = re.findall(r"^## \[(\d.*?)\] - \d{4}-\d\d-\d\d\n(.*?)(?=^## |\Z)", NEWS, re.MULTILINE | re.DOTALL)


def test_the_release_is_named_once():
    assert NEWS.index("## [Unreleased]") < NEWS.index("## [0")
    assert RELEASES[0][0] == gradtx.__version__
    assert f"version = {{{gradtx.__version__}}}" in (ROOT / "docs" / "cite.md").read_text()


@pytest.mark.parametrize(("version", "notes"), RELEASES, ids=[v for v, _ in RELEASES])
def test_each_release_says_how_to_upgrade_and_what_it_was_tested_with(version: str, notes: str):
    assert re.search(r"^### Upgrading from \d", notes, re.MULTILINE)
    pair = r"Python 3\.\d+ and JAX [\d.]+"
    assert re.match(rf"\nTested with {pair}, the oldest, up to {pair}, the newest", notes)


def test_names_that_moved_are_where_the_upgrade_says():
    moved = re.findall(r"^\| `gradtx\.(.*)` \| `gradtx\.(\w+)\.\w+`, \.\.\. \|$", RELEASES[0][1], re.MULTILINE)
    assert len(moved) == 5
    for names, namespace in moved:
        for name in names.split("`, `"):
            assert hasattr(getattr(gradtx, namespace), name), f"{namespace}.{name}"
            with pytest.raises(AttributeError, match=rf"gradtx\.{namespace}\.{name}\b"):
                getattr(gradtx, name)


def test_the_description_has_no_link_into_the_repository():
    """What the build makes of the README for a package index, with and without an address of the repository."""
    spec = importlib.util.spec_from_file_location("description", ROOT / "docs" / "description.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    readme = (ROOT / "README.md").read_text()
    inside = [t for t in re.findall(r"\]\(([^)\s]+)\)", readme) if "://" not in t]
    assert len(inside) > 20

    linked = module.description(readme, "https://example.org/gradtx/")
    assert len(re.findall(r"\]\(https://example\.org/gradtx/(?:blob|raw)/HEAD/", linked)) == len(inside)
    assert " fit](https://example.org/gradtx/raw/HEAD/docs/images/paths.png)" in linked
    assert all((ROOT / t).exists() for t in re.findall(r"gradtx/(?:blob|raw)/HEAD/([^)#\s]+)", linked))

    bare = module.description(readme, None)
    assert not re.search(r"\]\((?!https?://)", bare) and "![" not in bare
    assert "What differs on\npurpose is on a page, with a test of each side." in bare
    assert re.findall(r"^```.*?^```", bare, re.M | re.S) == re.findall(r"^```.*?^```", readme, re.M | re.S)
    assert "readme" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"]
