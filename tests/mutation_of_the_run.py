# SPDX-License-Identifier: Apache-2.0
"""Which share of mutants the tests notice: how much they hold, and a number to compare two states of them by.

    python tests/mutation_of_the_run.py [--each 15] [--package core] [--seed 0] [--likely 5] [--run "tests/core ..."]

Draws some mutants of the functions and methods in each of gradtx/core, numerics, precision, _roles, optimizers and
wrappers, the same for the same seed, and runs tests with each one until one fails. Those files come first that name
the function, or other public names of its module; then those of `TESTS`, or the ones that are given; last the former
with the cases whose turn it is not. The test that failed is run again without the mutant, to be sure that it is the
mutant that it notices. One that no test notices is printed, and what is known of it is in `mutation_survivors.py`.

With `--run` only the tests that are given run, with `--likely 0` in the order of pytest: so in two checkouts whose
package is the same it says whether a change of the tests loses anything. What a mutant is, is in tests/mutants.py.
"""

import argparse
import collections
import importlib
import os
import pathlib
import random
import re
import signal
import sys
import tempfile

ROOT = pathlib.Path.cwd()
HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT), str(HERE)]

# What most tests import is imported once, here.
import chex  # noqa: E402, F401  # after the path is set
import flax.nnx  # noqa: E402, F401
import optax  # noqa: E402, F401
import pytest  # noqa: E402

import gradtx  # noqa: E402, F401
from mutants import functions, mutants, put  # noqa: E402
from mutation_survivors import EXPLAINED  # noqa: E402

PACKAGES = ("core", "numerics", "precision", "_roles", "optimizers", "wrappers")
LAWS = ["tests/test_formulas.py", "tests/test_laws.py", "tests/parameters/test_stacks.py"]
TESTS = {
    "core": [f"tests/{x}" for x in ("core", "sharding", "test_contract.py", "parameters", "needs", "wrappers")] + LAWS,
    "numerics": ["tests/numerics", "tests/precision", "tests/transforms", "tests/test_minimization.py", *LAWS],
    "precision": ["tests/precision", "tests/needs", "tests/test_half_precision.py", "tests/state"],
    "_roles": ["tests/parameters", "tests/needs", "tests/inspecting"],
    "optimizers": ["tests/optimizers", *LAWS],
    "wrappers": ["tests/wrappers", *LAWS],
}


def places(package: str) -> list[tuple[str, str, int]]:
    """Module, function and number of each mutant."""
    found = []
    for path in sorted((ROOT / "gradtx" / package).glob("_[a-z]*.py")):
        module = importlib.import_module(f"gradtx.{package}.{path.stem}")
        for name, function in functions(module, methods=True):
            found += [(module.__name__, name, i) for i, _ in enumerate(mutants(function, logic=True))]
    return found


def likely(module: str, function: str, number: int) -> list[str]:
    """The files of tests that speak most of a function: a name counts by how few files speak of it."""
    stem = module.rpartition(".")[2].strip("_")
    public = [n for n, x in vars(sys.modules[module]).items() if getattr(x, "__module__", "") == module]
    names = {n.lstrip("_"): 1.0 for n in public if len(n) > 3} | {stem: 1.0}
    names |= dict.fromkeys((n.lstrip("_") for n in function.split(".")), 3.0)
    scores: collections.defaultdict[str, float] = collections.defaultdict(float)
    texts = {str(f.relative_to(ROOT)): f.read_text() + f.stem for f in sorted((ROOT / "tests").rglob("test_*.py"))}
    texts = {f: text for f, text in texts.items() if f.split("/")[1] not in ("examples", "docs", "race")}  # whole runs
    for name, weight in names.items():
        where = [f for f, text in texts.items() if re.search(rf"(?<![a-zA-Z]){name}(?![a-zA-Z])", text)]
        for f in where:
            scores[f] += weight / len(where)
    return sorted(scores, key=scores.__getitem__, reverse=True)[:number]


class Mutating:
    """A plugin of pytest that makes the mutant before a test is imported, so that what tests make then has it too."""

    def __init__(self, mutant: tuple[str, str, int]):
        self.mutant = mutant

    def pytest_configure(self) -> None:
        module, name, number = self.mutant
        function = dict(functions(sys.modules[module], methods=True))[name]
        put(function, list(mutants(function, logic=True))[number][1])


def first_failure(tests: list[str], mutant: tuple[str, str, int] | None = None) -> str:
    """The test that fails first, if one does."""
    with tempfile.TemporaryFile("w+") as output:
        if not (child := os.fork()):  # what gradtx and the tests import is there, and JAX has not begun to work
            for stream in (1, 2):
                os.dup2(output.fileno(), stream)
            signal.alarm(900)
            arguments = ["-x", "-q", "--tb=no", "-rfE", "-p", "no:cacheprovider", *tests]
            code = pytest.main(arguments, plugins=[Mutating(mutant)] if mutant else [])
            sys.stdout.flush()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        said = output.read().splitlines()
    for line in said:
        if line.startswith(("FAILED ", "ERROR ")):
            return line.partition(" ")[2].partition(" - ")[0]
    if code in (0, 5):
        return ""
    if mutant:
        return "it does not end" if code == -signal.SIGALRM else f"pytest ends with {code}: {said[-1][:100]}"
    raise SystemExit("without a mutant: " + "\n".join(said[-30:]))


def line_of(module: str, function: str, number: int) -> tuple[int, str]:
    """The line of a mutant, and what stands in it."""
    source = sys.modules[module].__file__
    assert source
    line, _ = list(mutants(dict(functions(sys.modules[module], methods=True))[function], logic=True))[number]
    return line, pathlib.Path(source).read_text().splitlines()[line - 1].strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=15, help="so many mutants of each package")
    parser.add_argument("--package", choices=PACKAGES, nargs="+", default=PACKAGES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--likely", type=int, default=5, help="so many files that speak of the function come first")
    parser.add_argument("--run", help="the tests to run, in place of those of TESTS")
    arguments = parser.parse_args()
    sound = {""}
    for package in arguments.package:
        drawn = random.Random(arguments.seed).sample(places(package), arguments.each)
        noticed = 0
        for mutant in drawn:
            first = likely(mutant[0], mutant[1], arguments.likely)
            rest = arguments.run.split() if arguments.run else TESTS[package]
            whole = [*first, "--all-cases"] if first and not arguments.run else []
            found = next((f for tests in (first, rest, whole) if tests and (f := first_failure(tests, mutant))), "")
            if found.startswith("tests/") and found not in sound and first_failure([found]):
                raise SystemExit(f"{found} fails without a mutant too")
            sound.add(found)
            noticed += bool(found)
            line, text = line_of(*mutant)
            why = EXPLAINED.get((mutant[0].removeprefix("gradtx.").replace(".", "/") + ".py", text), "not explained")
            print(
                f"{' '.join(map(str, mutant))}, line {line}: {found[:150] or f'not noticed: {text}: {why}'}", flush=True
            )
        print(f"{package}: {noticed} of {arguments.each} noticed", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
