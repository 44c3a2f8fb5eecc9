# SPDX-License-Identifier: Apache-2.0
"""Roles from the names of axes that Flax keeps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx import Role
from support import transformers

NAMES = {"layers": "stack", "heads": "heads"}


@jax.tree_util.register_pytree_with_keys_class
class Named:
    """A box with the interface of Flax's `Partitioned`."""

    def __init__(self, value: Any, names: tuple):
        self.value, self.names = value, names

    def replace_boxed(self, value: Any) -> "Named":
        return Named(value, self.names)

    def tree_flatten_with_keys(self) -> tuple:
        return ((jax.tree_util.GetAttrKey("value"), self.value),), self.names

    @classmethod
    def tree_unflatten(cls, names: tuple, children: tuple) -> "Named":
        return cls(children[0], names)


class Spec(NamedTuple):
    spec: tuple


def named(*shape: int, names: Any) -> Named:
    return Named(jnp.ones(shape), names)


def test_a_linen_transformer():
    nn = pytest.importorskip("flax.linen")
    boxed, plain = transformers.linen_scanned(named=True).params, transformers.linen_scanned().params
    found = gradtx.roles_from_names(boxed, NAMES)
    # The biases and norms have no names: they are stacked as what is around them is.
    assert gradtx.as_rules(found) == gradtx.as_rules(gradtx.infer_roles(plain))
    for params in (boxed, plain, nn.meta.unbox(boxed), jax.eval_shape(lambda: boxed)):
        assert gradtx.as_rules(gradtx.roles(params, found)) == gradtx.as_rules(found)
    in_boxes = gradtx.roles(boxed, found)
    assert jax.tree.structure(in_boxes) == jax.tree.structure(boxed)


@pytest.mark.slow
def test_an_nnx_transformer():
    nnx = pytest.importorskip("flax.nnx")
    plain = transformers.nnx_stacked().params
    with transformers.named_mesh():
        params = transformers.nnx_stacked(named=True).params
        found = gradtx.roles_from_names(params, NAMES)
        assert gradtx.as_rules(found) == gradtx.as_rules(gradtx.infer_roles(plain))
        for tree in (params, plain, nnx.to_pure_dict(params)):
            assert gradtx.as_rules(gradtx.roles(tree, found)) == gradtx.as_rules(found)


def test_names_say_more_than_the_guess():
    params = {"a": {"kernel": named(3, 5, 4, names=("mlp", "stack of layers", "embed"))}}
    names = {"stack of layers": "stack", "mlp": "out", "embed": "in"}
    assert gradtx.roles_from_names(params, names) == {"a": {"kernel": Role("hidden", 1, -1, -3)}}
    # One of the two is enough; without names of stacks they are guessed.
    params = {"a": {"kernel": named(3, 4, names=("mlp", "embed"))}}
    assert gradtx.roles_from_names(params, {"embed": "in"})["a"]["kernel"] == Role("hidden", (), -1, -2)
    assert gradtx.roles_from_names(params, {"mlp": "out"})["a"]["kernel"] == Role("hidden", (), -1, -2)
    assert gradtx.roles_from_names(params, {"embed": "out"})["a"]["kernel"] == Role("hidden", (), -2, -1)
    conv = {"conv": {"kernel": named(3, 3, 8, 16, names=(None, None, "channels", None))}}
    assert gradtx.roles_from_names(conv, {"channels": "in"})["conv"]["kernel"] == Role("hidden", (), -2, -1)
    stack = {"layers": {"norm": {"scale": jnp.ones((3, 4))}, "up": {"kernel": named(3, 4, 5, names=(None, "e", "m"))}}}
    assert gradtx.roles_from_names(stack, {}) == gradtx.infer_roles(stack_of_arrays(stack))


def stack_of_arrays(tree):
    return jax.tree.map(lambda x: x.value if isinstance(x, Named) else x, tree, is_leaf=lambda x: isinstance(x, Named))


def test_heads_by_name():
    # In modules whose names say nothing; with the stack behind the heads, too.
    params = {
        "wq": {"kernel": named(8, 2, 4, names=("embed", "heads", "kv"))},
        "wo": {"kernel": named(2, 7, 4, 8, names=("heads", "layers", "kv", "embed"))},
        "norm": {"scale": named(2, 4, names=("heads", "kv"))},
    }
    assert gradtx.roles_from_names(params, NAMES) == {
        "wq": {"kernel": Role("hidden", (), -3, (-2, -1), -2)},
        "wo": {"kernel": Role("hidden", 1, (-4, -2), -1, -4)},
        "norm": {"scale": Role("norm")},
    }
    with pytest.raises(ValueError, match="roles_from_names: a/kernel has 2 axes of heads"):
        gradtx.roles_from_names({"a": {"kernel": named(2, 2, names=("heads", "heads"))}}, {"heads": "heads"})


def test_parameters_without_names():
    params = {
        "inner": {
            "kernel": named(3, 4, 5, names=("layers", None, None)),
            "bias": jnp.ones((3, 5)),
            "other": jnp.ones(2),
        },
        "more": {"bias": jnp.ones((3, 5)), "none": None},
        "outer": {"kernel": named(4, 5, names=(None, None)), "bias": jnp.ones(3)},
    }
    found = gradtx.roles_from_names(params, {"layers": "stack"})
    stacks = {path: role.stack for path, role in gradtx.as_rules(found)}
    assert stacks == {
        "/inner/kernel": (0,),
        "/inner/bias": (0,),
        "/inner/other": (),  # of another size
        "/more/bias": (),  # around it are both kinds
        "/outer/kernel": (),
        "/outer/bias": (),
    }
    assert found["more"]["none"] is None


def test_forms_of_names():
    for names in (("layers", None), (("data", "layers"), ()), Spec(("layers", "x")), ["layers", "x"]):
        params = {"norm": {"scale": named(3, 4, names=names)}}
        assert gradtx.roles_from_names(params, {"layers": "stack"})["norm"]["scale"] == Role("norm", 0)
    params = {"norm": {"scale": named(3, 4, names=None)}}
    assert gradtx.roles_from_names(params, {})["norm"]["scale"] == Role("norm")
    params = {"norm": {"scale": Named(None, ("layers",)), "b": named(3, names=("layers",))}}
    assert gradtx.roles_from_names(params, {"layers": "stack"})["norm"] == {"scale": None, "b": Role("bias", 0)}


def test_errors():
    params = {"a": {"kernel": named(3, 4, names=("layers", "embed"))}}
    with pytest.raises(ValueError, match="names must map the names of axes to stack, in, out, heads, got .*'norm'"):
        gradtx.roles_from_names(params, {"layers": "norm"})
    with pytest.raises(ValueError, match="names must map"):
        gradtx.roles_from_names(params, [("layers", "stack")])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no axis has the name layres; the names are embed, layers"):
        gradtx.roles_from_names(params, {"layres": "stack"})
    with pytest.raises(ValueError, match="the names are none: pass the parameters with the boxes or variables"):
        gradtx.roles_from_names({"a": jnp.ones(3)}, {"layers": "stack"})
    with pytest.raises(ValueError, match=r"a/kernel, of shape \(2, 3, 4\), has names for 2 axes.*PARTITION_NAME"):
        gradtx.roles_from_names({"a": {"kernel": named(2, 3, 4, names=("x", "y"))}}, {"x": "in"})
