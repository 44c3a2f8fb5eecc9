# SPDX-License-Identifier: Apache-2.0
"""Mutation check: flips signs, operators, comparisons and decays of the rules, and asks whether a formula notices.

    python tests/mutation.py [--only _adam] [--steps 12] [--every 1] [--first 0]

Every file of gradtx/optimizers and gradtx/transforms, gradtx/wrappers and gradtx/numerics is changed in memory, one
place at a time, and the formulas of tests/formulas whose transformations run that file are compared for some steps. A
mutant that none of them notices is printed; the exit status is 1 if there is one that `mutation_survivors.py` does not
explain. Wrappers that only say which steps another transformation takes have no formula and are left out: `STEERING`.

All mutants take ten minutes; `--every` takes a sample of them, counted over all files from `--first` on.
"""

import argparse
import functools
import importlib
import itertools
import pathlib
import sys
import types

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import jax  # noqa: E402  # after the path is set
import numpy as np  # noqa: E402

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_enable_x64", True)

import formulas  # noqa: E402
from gradtx.core import _kernels as kernels  # noqa: E402
from gradtx.core._calls import Value  # noqa: E402
from mutants import functions, mutants  # noqa: E402
from mutation_survivors import EXPLAINED  # noqa: E402
from support.formulas import deviation, run_formula, run_rule  # noqa: E402

FOLDERS = ("optimizers", "transforms", "wrappers", "numerics")

# What they do is which transformation gets which leaves, steps, numbers or names, and what the state says of it; the
# numbers are those of the transformation inside. tests/wrappers has a file of tests for each.
STEERING = (
    "wrappers/_conditional.py",
    "wrappers/_freezing.py",
    "wrappers/_guard.py",
    "wrappers/_guard_rules.py",
    "wrappers/_hyperparameters.py",
    "wrappers/_partition.py",
    "wrappers/_skipping.py",
    "wrappers/_unstacking.py",
    # What codecs and rounding stages do with each number: tests/precision.
    "numerics/_dynamic_map.py",
    "numerics/_nibbles.py",
    "numerics/_random_bits.py",
    "numerics/_rounding.py",
    # Searches are held by the conditions that their steps meet: tests/transforms/test_linesearch.py.
    "transforms/_backtracking.py",
    "transforms/_lines.py",
    "transforms/_linesearch.py",
    "numerics/_wolfe.py",
    "numerics/_box.py",
    # It takes heads of attention and their logits: tests/transforms/test_qk_clip.py.
    "transforms/_qk_clip.py",
)


def modules_of(tx) -> set[str]:
    """The modules of the factories that a transformation is made of, and of functions among their arguments."""
    found, todo = set(), [tx]
    while todo:
        value = todo.pop()
        if isinstance(value, types.FunctionType):
            found.add(value.__module__)
        if not isinstance(value, Value) or value.factory is None:
            continue
        found.add(value.factory.module)
        todo += jax.tree.leaves(dict(value.arguments), is_leaf=lambda x: isinstance(x, Value))
        expanded = getattr(value, "expanded", value)
        if expanded is not value:
            todo.append(expanded)
    return found


@functools.cache
def reached(name: str) -> frozenset[str]:
    """The modules of gradtx whose functions a module can call, itself included."""
    found, todo = set(), [name]
    while todo:
        module = sys.modules.get(current := todo.pop())
        if current in found or not current.startswith("gradtx.") or module is None:
            continue
        found.add(current)
        for thing in vars(module).values():
            home = "__name__" if isinstance(thing, types.ModuleType) else "__module__"
            todo.append(getattr(thing, home, None) or "")
    return frozenset(found)


def notices(case, expected, steps: int) -> bool:
    kernels.forget()
    try:
        with jax.disable_jit(), np.errstate(all="ignore"):
            found = deviation(run_rule(case.make(), steps, gradient=case.gradient), expected)
    except Exception:  # a mutant that raises is noticed
        return True
    return not found < case.tolerance


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="files whose path contains this")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--every", type=int, default=1, help="one mutant in so many")
    parser.add_argument("--first", type=int, default=0, help="the number of the first")
    arguments = parser.parse_args()
    with np.errstate(all="ignore"):
        expected = {id(c): run_formula(c, arguments.steps) for c in formulas.CASES}
    used = {id(c): modules_of(c.make()) for c in formulas.CASES}
    killed, survivors, explained, number = 0, [], 0, itertools.count()
    sound = set()
    for folder in FOLDERS:
        for path in sorted((ROOT / "gradtx" / folder).glob("*.py")):
            file = f"{folder}/{path.name}"
            if path.name == "__init__.py" or file in STEERING or arguments.only not in str(path):
                continue
            module = importlib.import_module(f"gradtx.{folder}.{path.stem}")
            reach = reached if folder == "numerics" else lambda name: {name}
            cases = [c for c in formulas.CASES if any(module.__name__ in reach(name) for name in used[id(c)])]
            if folder == "numerics" and not cases:
                continue  # no rule's: tests/numerics has tests of it
            source = path.read_text().splitlines()
            for name, function in functions(module):
                original = function.__code__
                for line, code in mutants(function):
                    if next(number) % arguments.every != arguments.first:
                        continue
                    function.__code__ = code
                    try:
                        noticed = next((c for c in cases if notices(c, expected[id(c)], arguments.steps)), None)
                    finally:
                        function.__code__ = original
                    text = source[line - 1].strip()
                    if noticed is not None:
                        if id(noticed) not in sound and notices(noticed, expected[id(noticed)], arguments.steps):
                            raise SystemExit(f"{noticed.name} is not its formula even without a mutant")
                        sound.add(id(noticed))
                        killed += 1
                        cases.sort(key=lambda c, first=noticed: c is not first)
                    elif (file, text) in EXPLAINED:
                        explained += 1
                    else:
                        survivors.append(f"{file}:{line} {name}: {text}")
                        print("not noticed:", survivors[-1], flush=True)
    print(f"{killed} mutants noticed, {explained} explained, {len(survivors)} not noticed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
