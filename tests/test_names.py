# SPDX-License-Identifier: Apache-2.0
"""The public names: how many there are at the top level, that each has one path, what is said of others."""

import collections
import subprocess
import sys
from types import ModuleType

import pytest

import gradtx
from gradtx import _front
from gradtx.compat import optax
from support.public import ROOT, namespaces, public_names

MOST = 330


def test_the_top_level_is_what_people_type_every_day():
    assert len(_front.public(gradtx)) <= MOST, "a namespace is the place of what is not typed every day"
    # Rooms without public names, such as `gradtx.core`, are no names to type.
    assert [n for n in dir(gradtx) if not n.startswith("_")] == dir(gradtx)


def test_each_thing_has_one_public_path():
    paths = collections.defaultdict(list)
    for place, name, thing in public_names():
        if place != "gradtx.compat":
            paths[id(thing) if "gradtx" in getattr(thing, "__module__", "") else name].append(f"{place}.{name}")
    of_one_name = collections.Counter(name for _, name, _ in public_names())
    assert {k: v for k, v in paths.items() if len(v) > 1} == {}
    # The same word twice means another thing in a namespace, such as `tree.scale`.
    assert {n for n, count in of_one_name.items() if count > 1} == {"clip", "scale", "size", "where"}


def test_things_have_the_names_that_they_are_defined_by():
    others = {n: x for _, n, x in public_names() if "gradtx" in getattr(x, "__module__", "")}
    assert {n: x for n, x in others.items() if getattr(x, "__name__", n) != n} == {}


def test_what_does_not_load_at_once_is_there():
    assert {"gradtx.plot", "gradtx.testing", "gradtx.race", "gradtx.compat", "gradtx.states"} <= set(namespaces())
    script = "import gradtx; print(gradtx.testing.check_contract.__name__, gradtx.compat.optax.adamw.__name__)"
    assert printed_by(script).split() == ["check_contract", "adamw"]


def printed_by(script: str) -> str:
    """In a process of its own, where nothing is loaded."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.strip()


NOT_LOADED = f"""
import sys, gradtx
assert not [x for x in {_front.LAZY} if f"gradtx.{{x}}" in sys.modules], "they load when they are used"
assert "losses" in dir(gradtx) and "gradtx.losses" not in sys.modules
assert "jax.extend" not in sys.modules and "jax.scipy.linalg" not in sys.modules, "which take their time"
"""


@pytest.mark.parametrize(
    ("script", "prints"),
    [
        ("from gradtx import losses; print(losses.__name__)", "gradtx.losses"),
        ("import gradtx.losses; print(gradtx.losses.l2_loss.__name__)", "l2_loss"),
        ("from gradtx import *; print(adam.__name__, tree.__name__)", "adam gradtx.tree"),
        ("print(gradtx.from_string('recipes.nanochat(100)').factory.name)", "nanochat"),
        ("print('nanochat' in gradtx.json_schema()['$defs'])", "True"),
        ("try: gradtx.l2_loss\nexcept AttributeError as error: print(error.args[0][-21:])", "gradtx.losses.l2_loss"),
    ],
)
def test_what_loads_on_first_use_is_found_by_all_who_ask(script: str, prints: str):
    assert printed_by(NOT_LOADED + script) == prints


def test_no_text_depends_on_what_was_loaded_before():
    script = "; import json, hashlib; print(hashlib.md5(json.dumps(gradtx.json_schema()).encode()).hexdigest())"
    loaded = ["", ", gradtx.recipes, gradtx.states", ", gradtx.compat.optax, gradtx.aggregating"]
    assert len({printed_by(f"import gradtx{others}{script}") for others in loaded}) == 1


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("multi_transform", "gradtx.partition"),
        ("scale_by_learning_rate", "gradtx.scale_by_lr"),
        ("Adam", "gradtx.adam"),
        ("AdamW", "gradtx.adamw"),
        ("SGD", "gradtx.sgd"),
        ("RMSprop", "gradtx.rmsprop"),
        ("Nadam", "gradtx.nadam"),
        ("ScaleByAdamState", "gradtx.states.ScaleByAdamState"),
        ("l2_loss", "gradtx.losses.l2_loss"),
        ("safe_norm", "gradtx.numerics.safe_norm"),
        ("Decay", "gradtx.typing.Decay"),
        ("norm_spike", "gradtx.skipping.norm_spike"),
        ("cosine", "gradtx.schedules.cosine"),
        ("hvp", "gradtx.compat.optax.second_order.hvp"),
        ("tree_map_params", "gradtx.compat.optax.tree_map_params"),
    ],
)
def test_a_name_that_is_elsewhere_is_answered_with_its_path(name: str, found: str):
    assert not hasattr(gradtx, name)
    with pytest.raises(AttributeError, match=f"'gradtx' has no attribute '{name}': it is {found}$"):
        getattr(gradtx, name)


def test_a_name_that_is_nowhere():
    with pytest.raises(AttributeError, match="'gradtx' has no attribute 'adamm'$"):
        gradtx.adamm  # noqa: B018  # the access is what is tested
    assert not hasattr(gradtx, "__wrapped__")


def test_every_spelling_of_optax_is_answered():
    """No name of Optax 0.2.8's top level is met with silence."""
    for name in dir(optax):
        if not name.startswith("_") and not hasattr(gradtx, name):
            with pytest.raises(AttributeError, match=": it is gradtx"):
                getattr(gradtx, name)


def test_the_page_for_those_who_come_from_optax_says_where_its_names_are():
    """The table has a row for each namespace with a name of Optax, which has one public path."""
    page = (ROOT / "docs" / "coming_from_optax.md").read_text()
    homes = {id(thing): place for place, _, thing in public_names() if callable(thing)}
    modules = [optax, *(x for x in vars(optax).values() if isinstance(x, ModuleType))]
    needed = {homes[id(x)] for m in modules for x in vars(m).values() if id(x) in homes} - {"gradtx"}
    assert len(needed) >= 10
    assert {place for place in needed if f"`{place}." not in page} == set()
