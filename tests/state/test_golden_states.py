# SPDX-License-Identifier: Apache-2.0
"""Every factory's state has the layout that `support/golden_states.json` records; older layouts load."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import migrate
from gradtx._version import __version__
from gradtx.testing._compare import numbers
from support.golden_states import MADE, PARAMS, fault, layout_of, older, recorded

KNOWN = recorded()


@pytest.mark.parametrize("name", MADE)
def test_layouts_are_as_recorded(name: str):
    sentence = fault(name, KNOWN.get(name), layout_of(MADE[name]()))
    assert sentence is None, sentence


def test_what_is_recorded_is_there():
    assert set(KNOWN) <= set(MADE), "states of these cannot be loaded any more"
    assert all(list(v) == sorted(v, key=numbers_of_version) for v in KNOWN.values())


def numbers_of_version(version: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", version)]


def restored(layout: dict[str, str]) -> tuple[dict, list]:
    """The dictionaries that a checkpoint of this layout gives without the classes, and its arrays."""
    tree: dict = {}
    arrays = []
    for i, (path, kind) in enumerate(layout.items()):
        dtype, shape = re.fullmatch(r"(.*)\[(.*)\]", kind).groups()
        size = [int(n) for n in shape.split(",") if n]
        arrays.append(
            jax.random.key(i) if dtype.startswith("key") else jnp.full(size, i % 2 if dtype == "bool" else i + 1, dtype)
        )
        *above, last = path.split("/")
        place = tree
        for key in above:
            place = place.setdefault(key, {})
        place[last] = arrays[-1]
    return tree, arrays


def assert_loads(name: str, layout: dict[str, str]) -> None:
    """Every array of the old state is in the new one, and nothing else had to be made up."""
    tree, arrays = restored(layout)
    state, report = migrate(tree, MADE[name](), PARAMS)
    assert not (report.dropped or report.initialized or report.grown), str(report)
    for x, y in zip(sorted_bytes(jax.tree.leaves(state)), sorted_bytes(arrays), strict=True):
        assert x == y


def sorted_bytes(leaves: list) -> list[bytes]:
    return sorted(np.asarray(numbers(x)).tobytes() for x in leaves)


def test_layouts_that_have_changed_load():
    for name, _, layout in older(KNOWN):
        assert_loads(name, layout)


def test_a_layout_of_old_loads():
    """What the test above would do with a layout from before clipping was put in front."""
    assert_loads("adam with a schedule", layout_of(gradtx.chain(gradtx.clip(1.0), *chained("adam with a schedule"))))
    with pytest.raises(AssertionError, match="initialized"):
        assert_loads("adam with a schedule", layout_of(gradtx.lion(0.1)))


def chained(name: str) -> tuple:
    return MADE[name]().expanded.arguments["transformations"]


# The check itself.


def test_a_changed_layout_is_one_sentence():
    now = {"count": "int32[]", "mu/w": "bfloat16[2,3]", "nu/w": "float32[2,3]"}
    then = {"count": "int32[]", "mu/w": "float32[2,3]"}
    assert fault("adam", {"0.0.1": then, "0.0.2": now}, now) is None
    assert fault("adam", {__version__: then}, now) == (
        f"adam: the state at mu/w was float32[2,3] in {__version__}, and is bfloat16[2,3] (and 1 more); states keep "
        "their layout within a version: raise that of gradtx/_version.py and run `python -m "
        f"tests.support.golden_states --record`, or, if {__version__} is not released yet, delete the entry in "
        "golden_states.json first"
    )
    assert fault("adam", {"0.0.1": now}, then) == (
        "adam: the state at mu/w was bfloat16[2,3] in 0.0.1, and is float32[2,3] (and 1 more); run `python -m "
        "tests.support.golden_states --record`, and say in CHANGELOG.md how states of 0.0.1 are loaded"
    )
    assert fault("adam", {"0.0.1": {"nu": "float32[]"}}, {}).startswith(
        "adam: the state at nu was float32[] in 0.0.1, and is gone;"
    )
    assert fault("new", None, now) == "new has no recorded layout: run `python -m tests.support.golden_states --record`"
