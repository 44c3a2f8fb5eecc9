# SPDX-License-Identifier: Apache-2.0
"""The test world: eight CPU devices, nothing promoted or broadcast in silence, compiled programs kept between tests.

`GRADTX_TEST_CACHE` names the folder of compiled programs; without it, a run makes one, shares it among its processes
and removes it. Compiling is most of a test's time, so a shared folder makes a second run several times faster.

Tests come in tiers:

    python -m pytest -m "not slow"     what one runs while writing
    python -m pytest                   also those slow tests and cases of which it is the turn
    python -m pytest --all-cases       all of them
    python -m pytest --few 2           two cases of each test, for a look at what they cover
    python -m pytest -m sample         what other Pythons run

The commit decides whose turn it is, so that a few commits in a row see nearly all of them; the header names the turn.
Without git it is the first. A slow test runs in a third of the turns; of one with many cases, a sixth or a twelfth run
in each. A test that is asked for by its name, `test_laws.py::test_contract[adam]`, runs, and what is new is tried whole
by `--all-cases -k name`. Marked as `whole` are the tests of which each case finds what no other does, such as those of
formulas.
"""

import functools
import os
import pathlib
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Iterator

_temporary_cache = None
if "GRADTX_TEST_CACHE" not in os.environ:
    # Set in the process that the user starts; the workers of pytest-xdist inherit it.
    _temporary_cache = os.environ["GRADTX_TEST_CACHE"] = tempfile.mkdtemp(prefix="gradtx-test-cache-")
# Read when JAX makes its backend, so scripts that a test starts see eight devices too. What is compiled runs once or
# twice on small arrays, so that optimizing it would take longer than it saves.
FLAGS = "--xla_force_host_platform_device_count=8", "--xla_backend_optimization_level=0"
FLAGS += ("--xla_llvm_disable_expensive_passes=true",)
os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *FLAGS))

import hypothesis  # noqa: E402  # after the environment is set
import jax  # noqa: E402
import pytest  # noqa: E402

from gradtx.core import _kernels as kernels  # noqa: E402

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_compilation_cache_dir", os.environ["GRADTX_TEST_CACHE"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# No deadline: the first example compiles, the others do not. The same examples in every run: a red run stays red.
hypothesis.settings.register_profile("gradtx", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("gradtx")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-cases", action="store_true", help="run all cases of slow tests, whosever turn it is")
    parser.addoption("--few", type=int, help="run at most so many cases of each test, slow or not, whosever turn it is")


TURNS = 12
"""After so many turns everything has run."""


def turn_of_this_commit() -> int:
    """A number below `TURNS`."""
    git = ["git", "-C", os.path.dirname(__file__), "rev-parse", "HEAD"]
    try:
        return int(subprocess.run(git, capture_output=True, text=True, check=True).stdout, 16) % TURNS
    except (OSError, subprocess.CalledProcessError):
        return 0


SLOW = {"against_torch", "compat", "differences", "examples", "needs"}  # comparisons with others, and whole runs
SLOW |= {"test_aggregating", "test_curvature", "test_extremes", "test_linear_algebra", "test_linesearch"}
SLOW |= {"test_low_rank", "test_perturbations"}
"""Folders and files that compile much, so that all their tests are slow."""

SAMPLE = {"test_layers", "test_old_checkpoints", "test_golden_states"}
"""Files that other Pythons run whole."""


@functools.cache
def markers_of_file(path: pathlib.Path) -> list[str]:
    slow = {path.parent.name, path.stem} & SLOW
    return ["slow"] * bool(slow) + ["sample"] * (path.stem in SAMPLE)


def pytest_itemcollected(item: pytest.Item) -> None:
    for marker in markers_of_file(item.path):
        item.add_marker(marker)


def pytest_report_header(config: pytest.Config) -> str:
    chosen = "all" if config.getoption("all_cases") else f"turn {turn_of_this_commit() + 1} of {TURNS} (--all-cases)"
    return f"cases of slow tests: {chosen}"


MANY, VERY_MANY = 6, 36
"""From so many cases on, a slow test runs a sixth and a twelfth of them in each turn; below, all in a third of them."""


def turned(cases: list[pytest.Item], turn: int) -> list[bool]:
    """Whether each case of a test runs in this turn."""
    parts = 12 if len(cases) >= VERY_MANY else 6 if len(cases) >= MANY else 3
    first = zlib.crc32(cases[0].nodeid.partition("[")[0].encode())  # tests with few cases take turns with each other
    return [_runs(x, turn, first + (i if parts > 3 else 0), parts) for i, x in enumerate(cases)]


def spread(number: int, few: int) -> list[bool]:
    """Of so many cases, a few from the first to the last."""
    return [i * few // number != (i - 1) * few // number for i in range(number)] if number > few else [True] * number


def _runs(case: pytest.Item, turn: int, place: int, parts: int) -> bool:
    markers = {m.name: m for m in reversed([*case.iter_markers()])}  # the closest counts
    if "turn" in markers:
        place, parts = markers["turn"].args
    elif "whole" in markers or "sample" in markers or "slow" not in markers:
        return True
    return place % parts == turn % parts


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the cases whose turn it is not."""
    if config.getoption("all_cases") or any("[" in argument for argument in config.args):
        return
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    turn, few = turn_of_this_commit(), config.getoption("few")
    others = []
    for group in cases.values():
        now = turned(group, turn) if few is None else spread(len(group), few)
        others += [x for x, runs in zip(group, now, strict=True) if not runs]
    gone = set(map(id, others))
    config.hook.pytest_deselected(items=others)
    items[:] = [x for x in items if id(x) not in gone]


def pytest_unconfigure() -> None:
    if _temporary_cache is not None:
        shutil.rmtree(_temporary_cache, ignore_errors=True)


_tests_run = 0


def pytest_runtest_teardown() -> None:
    """Forgets compiled programs now and then: thousands of tests keep gigabytes of them in memory otherwise."""
    global _tests_run
    _tests_run += 1
    if _tests_run % 200 == 0:
        jax.clear_caches()
        kernels.forget()


@pytest.fixture
def x64() -> Iterator[None]:
    """64-bit numbers inside one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def standard_promotion() -> Iterator[None]:
    """NumPy's promotion of dtypes and ranks inside one test, for third-party code that relies on it."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
