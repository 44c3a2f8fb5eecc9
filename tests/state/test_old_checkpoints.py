# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of an older gradtx load, bit for bit: names, places, shapes and dtypes of all states are what they were.

`python tests/state/test_old_checkpoints.py FILE` writes the states of every factory of the gradtx at hand, after two
updates. A file is written once, before a change that must not lose them, and never again.
"""

import pathlib
import sys

if __name__ == "__main__":
    sys.path[:0] = [str(pathlib.Path(__file__).parents[1]), str(pathlib.Path(__file__).parents[2])]

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt
from support.registry import FACTORIES, GRADIENTS, MEASURES, PARAMS, PER_EXAMPLE, example, extra_arguments

FILES = sorted((pathlib.Path(__file__).parent / "checkpoints").glob("*.npz"))
WRITTEN = {f.stem: np.load(f) for f in FILES}
ELSEWHERE = {"low_rank": lambda: gt.scale_by_fira(1)}
"""What now makes the states that a file has under a name: `low_rank` was Fira too, by an argument, and is GaLore."""
CASES = [(f, n) for f, x in WRITTEN.items() for n in sorted({k.partition("|")[0] for k in x.files})]


def stored_state(name: str):
    """The state after two updates."""
    tx = example(name)

    def run(state):
        for _ in range(2):
            state = tx.update(GRADIENTS, state, PARAMS, **extra_arguments(name))[1]
        return state

    return jax.jit(run)(tx.init(PARAMS))


def as_bytes(leaf) -> np.ndarray:
    """What npz can hold, which is no random key and no bfloat16: the bits of the numbers."""
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    x = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
    return x if x.dtype.isbuiltin == 1 else x.view(f"u{x.dtype.itemsize}")


def typed(template, found: np.ndarray):
    """The leaf that the bits are of."""
    if jnp.issubdtype(template.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(found))
    return jnp.asarray(found if template.dtype.isbuiltin == 1 else found.view(template.dtype))


@pytest.mark.parametrize(("file", "name"), CASES, ids=[f"{f}-{n}" for f, n in CASES])
def test_a_checkpoint_loads_bit_for_bit(file: str, name: str):
    found = {
        k.partition("|")[2]: WRITTEN[file][k]
        for k in WRITTEN[file].files
        if k.startswith(f"{name}|.") or k.startswith(f"{name}|[")
    }
    tx = ELSEWHERE.get(name, lambda: example(name))()
    state = tx.init(PARAMS)
    flat, treedef = jax.tree_util.tree_flatten_with_path(state)
    assert [jax.tree_util.keystr(path) for path, _ in flat] == list(found)
    for path, leaf in flat:
        bits, have = found[jax.tree_util.keystr(path)], as_bytes(leaf)
        assert (have.shape, have.dtype) == (bits.shape, bits.dtype), jax.tree_util.keystr(path)
    loaded = jax.tree.unflatten(treedef, [typed(x, found[jax.tree_util.keystr(path)]) for path, x in flat])
    for have, bits in zip(jax.tree.leaves(loaded), found.values(), strict=True):
        np.testing.assert_array_equal(as_bytes(have), bits)
    step = jax.eval_shape(lambda s: tx.update(GRADIENTS, s, PARAMS, **extra_arguments(name)), loaded)
    assert jax.tree.structure(step[1]) == treedef


@pytest.mark.parametrize("file", WRITTEN)
def test_no_factory_is_gone(file: str):
    assert {n for f, n in CASES if f == file} <= set(FACTORIES)


def test_a_file_was_found():
    assert len(CASES) > 200


if __name__ == "__main__":
    arrays = {}
    for name in FACTORIES:
        if name not in PER_EXAMPLE | MEASURES:
            for path, leaf in jax.tree_util.tree_flatten_with_path(stored_state(name))[0]:
                arrays[f"{name}|{jax.tree_util.keystr(path)}"] = as_bytes(leaf)
            arrays[f"{name}|"] = np.zeros(0)  # a state may have no arrays
    np.savez_compressed(sys.argv[1], **arrays)
