# SPDX-License-Identifier: Apache-2.0
"""Which share of mutants the tests notice, as a number to compare two states of the tests by.

    python tests/mutation_of_the_run.py [--each 10] [--package core] [--seed 0] [--run "tests/core tests/test_laws.py"]

Draws some mutants of functions in each of gradtx/core, numerics, optimizers and wrappers, the same for the same seed,
and runs tests with each one in memory until one fails: those of `TESTS`, or the ones that are given. Run it in two
checkouts whose package is the same, to see whether a change of the tests loses anything. What a mutant is, is in
tests/mutation.py, whose formulas notice nearly all in the rules; here are the tests of the package, and core.
"""

import argparse
import importlib
import pathlib
import random
import subprocess
import sys

ROOT = pathlib.Path.cwd()
sys.path[:0] = [str(ROOT), str(pathlib.Path(__file__).parent)]

import jax  # noqa: E402

import conftest  # noqa: E402  # after the path is set; first, as it says how JAX starts
from mutation import functions, mutants  # noqa: E402

PACKAGES = ("core", "numerics", "optimizers", "wrappers")
LAWS = ["tests/test_formulas.py", "tests/test_laws.py", "tests/parameters/test_stacks.py"]
TESTS = {
    "core": ["tests/core", "tests/test_contract.py", "tests/parameters", *LAWS],
    "numerics": ["tests/numerics", "tests/precision", *LAWS],
    "optimizers": ["tests/optimizers", *LAWS],
    "wrappers": ["tests/wrappers", *LAWS],
}


def places(package: str) -> list[tuple[str, str, int]]:
    """Module, function and number of each mutant."""
    found = []
    for path in sorted((ROOT / "gradtx" / package).glob("_[a-z]*.py")):
        module = importlib.import_module(f"gradtx.{package}.{path.stem}")
        for name, function in functions(module):
            found += [(module.__name__, name, i) for i, _ in enumerate(mutants(function))]
    return found


def run_mutated(module: str, name: str, number: int, tests: list[str]) -> int:
    """Runs the tests with this mutant, in this process; returns pytest's status."""
    import pytest

    jax.config.update("jax_enable_x64", False)  # which the formulas have, but the tests have not
    function = dict(functions(importlib.import_module(module)))[name]
    line, function.__code__ = list(mutants(function))[number]
    print(f"{module}:{line} {name}, mutant {number}", flush=True)
    return int(pytest.main(["-x", "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider", *tests]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=10, help="so many mutants of each package")
    parser.add_argument("--package", choices=PACKAGES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", help="the tests to run, in place of those of TESTS")
    parser.add_argument("--mutant", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.mutant:
        module, name, number = arguments.mutant
        return run_mutated(module, name, int(number), arguments.run.split())
    for package in [arguments.package] if arguments.package else PACKAGES:
        drawn = random.Random(arguments.seed).sample(places(package), arguments.each)
        tests = arguments.run or " ".join(TESTS[package])
        noticed = 0
        for mutant in drawn:
            command = [sys.executable, __file__, "--run", tests, "--mutant", *map(str, mutant)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            noticed += done.returncode == 1
            said = [x for x in done.stdout.splitlines() if x.startswith(("FAILED", "ERROR"))] or ["not noticed"]
            print(*mutant, done.returncode, said[0][:150], flush=True)
        print(f"{package}: {noticed} of {arguments.each} noticed")
    conftest.pytest_unconfigure()
    return 0


if __name__ == "__main__":
    sys.exit(main())
