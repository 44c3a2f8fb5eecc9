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
import os
import pathlib
import random
import subprocess
import sys

ROOT = pathlib.Path.cwd()
HERE = pathlib.Path(__file__).resolve().parent
MUTANT = "GRADTX_MUTANT"
"""The environment variable that names module, function and number of the mutant to run the tests with."""

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
    from mutation import functions, mutants

    found = []
    for path in sorted((ROOT / "gradtx" / package).glob("_[a-z]*.py")):
        module = importlib.import_module(f"gradtx.{package}.{path.stem}")
        for name, function in functions(module):
            found += [(module.__name__, name, i) for i, _ in enumerate(mutants(function))]
    return found


def pytest_collection_finish() -> None:
    """As a plugin of pytest: the tests are there, now comes the mutant."""
    import jax

    with jax.enable_x64(True):
        from mutation import functions, mutants
    jax.config.update("jax_enable_x64", False)  # which the formulas have, but not all tests
    if not os.environ[MUTANT]:
        return
    module, name, number = os.environ[MUTANT].split()
    function = dict(functions(importlib.import_module(module)))[name]
    line, function.__code__ = list(mutants(function))[int(number)]
    jax.clear_caches()
    print(f"the mutant is in line {line} of {module}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=10, help="so many mutants of each package")
    parser.add_argument("--package", choices=PACKAGES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", help="the tests to run, in place of those of TESTS")
    arguments = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(HERE)]
    path = os.pathsep.join([str(ROOT), str(HERE), os.environ.get("PYTHONPATH", "")])
    for package in [arguments.package] if arguments.package else PACKAGES:
        drawn = random.Random(arguments.seed).sample(places(package), arguments.each)
        tests = arguments.run.split() if arguments.run else TESTS[package]
        noticed = 0
        for name in ["", *(" ".join(map(str, mutant)) for mutant in drawn)]:
            command = [sys.executable, "-m", "pytest", "-p", "mutation_of_the_run", "-x", "-q", "--tb=no", *tests]
            environment = {**os.environ, "PYTHONPATH": path, MUTANT: name}
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            said = [x for x in done.stdout.splitlines() if x.startswith(("FAILED", "ERROR"))]
            if done.returncode not in (0, 1) or (said and not name):
                raise SystemExit(f"{name or 'without a mutant'}: {done.stdout[-2000:]}\n{done.stderr[-2000:]}")
            if not name:
                continue
            noticed += bool(said)
            print(f"{name}: {said[0][:150] if said else 'not noticed'}", flush=True)
        print(f"{package}: {noticed} of {arguments.each} noticed", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
