# SPDX-License-Identifier: Apache-2.0
"""What differs behind a name of `gradtx.compat.optax` is on a page."""

import ast
import re
from pathlib import Path

import gradtx
from gradtx.compat import _line_searches, _spellings, optax

ROOT = Path(__file__).parents[2]
PAGES = [(ROOT / "docs" / page).read_text() for page in ("differences.md", "coming_from_optax.md")]
PROSE = re.sub(r"^```.*?^```$", "", "\n".join(PAGES), flags=re.MULTILINE | re.DOTALL)
MENTIONED = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", PROSE))))

# What the pages call otherwise: a stage by its recipe or the reverse.
RECIPES = {"scale_by_factored_rms": "adafactor", "lbfgs": "scale_by_lbfgs"}
# What the tests of the differences run other things with.
TOOLS = {"chain", "adam", "adamw", "sgd", "identity", "stateless", "apply_updates", "rmsprop"}


def functions_run_in_both() -> dict[str, str]:
    """The names behind `lib.`, `optax.` and `gt.` in the tests of differences, with a file that has them."""
    found = {}
    for path in sorted((ROOT / "tests" / "differences").glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                root = node.value
                while isinstance(root, ast.Attribute):
                    root = root.value
                if isinstance(root, ast.Name) and root.id in ("lib", "optax"):
                    found[node.attr] = path.name
    return found


def test_what_the_tests_of_differences_run_is_on_a_page():
    names = functions_run_in_both()
    modules = {"tree", "contrib", "transforms", "schedules", "losses", "tree_utils"}
    modules |= {"assignment", "microbatching", "projections", "second_order"}
    assert len(names) > 40
    unmentioned = {
        name: file
        for name, file in names.items()
        if not {name, name.removeprefix("scale_by_"), RECIPES.get(name)} & MENTIONED
        and name not in TOOLS | modules
        and name[0].islower()
    }
    assert unmentioned == {}


def test_adapters_are_on_a_page():
    """Names that are not gradtx's objects: other spellings, and functions with optax's defaults."""
    adapted = {n for n in vars(optax) if not n.startswith("_") and n in vars(_spellings)}
    own = {n for n in adapted if getattr(gradtx, n, None) is not getattr(optax, n)}
    types = {n for n in own if n[0].isupper() and n != "MultiSteps"}
    assert own - types - MENTIONED == set()
    assert {n for n in types if getattr(optax, n) is gradtx.states.EmptyState} >= {"ClipState", "ScaleState"}


def test_defaults_that_differ_are_in_the_table():
    table = PAGES[1].partition("## Defaults")[2].partition("\n## ")[0]
    functions = [n for n, x in vars(_spellings).items() if getattr(x, "__module__", "") == _spellings.__name__]
    functions += [n for n in vars(_line_searches) if hasattr(optax, n) and not n.startswith("_")]
    changed = [n for n in functions if hasattr(gradtx, n) and getattr(gradtx, n) is not getattr(optax, n, None)]
    searches = {"lbfgs", "scale_by_zoom_linesearch", "scale_by_backtracking_linesearch"}
    assert set(changed) == {"MultiSteps", "optimistic_adam", "optimistic_adam_v2", *searches}
    assert [n for n in changed if n not in table] == []
