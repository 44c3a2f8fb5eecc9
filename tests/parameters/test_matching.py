# SPDX-License-Identifier: Apache-2.0
"""Which parameters a glob, an expression, a predicate or a kind means."""

import functools
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradtx
from gradtx.core._prefixes import MaskedNode
from gradtx.core._roles import Boxed
from gradtx.core._selectors import check_where, described, matches, named_leaves

LEAF = jax.ShapeDtypeStruct((3, 4, 5), jnp.float32)


def means(chosen, path, role=None):
    return matches(check_where("test", chosen), path, LEAF, role)


@pytest.mark.parametrize(
    ("glob", "yes", "no"),
    [
        ("kernel", ["kernel", "a/kernel", "a/0/kernel"], ["kernels", "a/my_kernel", "kernel/a", ""]),
        ("a/kernel", ["a/kernel", "b/a/kernel"], ["a/b/kernel", "ba/kernel"]),
        ("/kernel", ["kernel"], ["a/kernel"]),
        ("/a/*", ["a/b"], ["a/b/c", "c/a/b", "a"]),
        ("*", ["a", "a/b", ""], []),
        ("**", ["a", "a/b", ""], []),
        ("/*", ["a", "abc"], ["a/b"]),
        ("a*", ["a", "ab", "c/ab"], ["ab/c", "ca"]),
        ("*norm*/*", ["norm/scale", "a/layernorm_1/bias"], ["norm", "norm/a/b"]),
        ("layers/**", ["layers/a", "layers/a/b", "m/layers/a"], ["layers", "mylayers/a"]),
        ("a/**/b", ["a/b", "a/c/b", "a/c/d/b", "x/a/c/b"], ["a/cb", "ab", "ca/b"]),
        ("**/b", ["b", "a/b"], ["ab"]),
        ("a**b", ["ab", "a/b", "axx/yb"], ["ba"]),
        ("layer_?/w", ["layer_0/w"], ["layer_10/w", "layer_/w"]),
        ("layer?w", ["layer_w"], ["layer/w"]),
        ("l[012]", ["l0", "a/l2"], ["l3", "l"]),
        ("l[0-2]", ["l1"], ["l3", "l-"]),
        ("l[!0-2]", ["l3"], ["l1"]),
        ("a[!x]b", ["ayb"], ["a/b", "axb"]),
        ("a[]]", ["a]"], ["a"]),
        ("a[!]]", ["ab"], ["a]"]),
        ("a[[]b", ["a[b"], ["ab"]),
        ("a[*]", ["a*"], ["ab"]),
        ("a[^b]", ["ab", "a^"], ["ac"]),
        ("a[&&b]", ["a&", "ab"], ["ac"]),
        ("a.b+(c)|d$", ["a.b+(c)|d$"], ["axb+(c)|d$"]),
        ("a\\b", ["a\\b"], ["ab"]),
        ("~/linear", ["mlp/~/linear"], ["mlp/linear"]),
    ],
)
def test_globs(glob, yes, no):
    assert [p for p in yes if not means(glob, p)] == []
    assert [p for p in no if means(glob, p)] == []


def oracle(glob: str, path: str) -> bool:
    """Globs of letters, "/", "*", "**" and "?" by trying all ways to match."""

    def rest(g: str, p: str, first: bool) -> bool:
        if not g:
            return not p
        if first and g.startswith("**/"):
            ends = [0] + [i + 1 for i, c in enumerate(p) if c == "/"]
            return any(rest(g[3:], p[i:], True) for i in ends)
        if g.startswith("**"):
            return any(rest(g[2:], p[i:], False) for i in range(len(p) + 1))
        if g[0] == "*":
            length = next((i for i, c in enumerate(p) if c == "/"), len(p))
            return any(rest(g[1:], p[i:], False) for i in range(length + 1))
        if not p or (p[0] == "/" if g[0] == "?" else p[0] != g[0]):
            return False
        return rest(g[1:], p[1:], g[0] == "/")

    if glob.startswith("/"):
        return rest(glob[1:], path, True)
    parts = path.split("/")
    return any(rest(glob, "/".join(parts[i:]), True) for i in range(len(parts)))


@given(st.text("ab/*?", min_size=1, max_size=8), st.lists(st.text("ab", min_size=1, max_size=2), max_size=4))
def test_globs_against_trying_everything(glob, parts):
    # What follows stars is a case of its own: "a***" has the same meaning as "a**".
    if not glob.endswith("/") and "***" not in glob:
        assert means(glob, "/".join(parts)) == oracle(glob, "/".join(parts))


def test_expressions_are_searched():
    assert means(re.compile("attn|mlp"), "block/attn/q")
    assert not means(re.compile("^attn"), "block/attn/q")


def test_predicates_see_the_path_and_the_leaf():
    assert means(lambda path, leaf: path == "a/b" and leaf.ndim == 3 and leaf.dtype == jnp.float32, "a/b")
    assert means(lambda path, leaf: np.bool_(leaf.shape[0] == 3), "a")


def test_predicates_see_one_parameter_of_a_stack():
    assert means(lambda path, leaf: leaf.shape == (4, 5), "a", gradtx.Role("hidden", stack=0))
    assert means(lambda path, leaf: leaf.shape == (3, 4), "a", gradtx.Role("hidden", stack=-1))


def test_predicates_see_the_shape_of_python_numbers():
    assert matches(lambda path, leaf: leaf.shape == () and leaf.dtype == jnp.float32, "a", 1.0, None)


def test_kinds():
    assert means(gradtx.of_kind("norm", "bias"), "a", gradtx.Role("bias"))
    assert not means(gradtx.of_kind("norm", "bias"), "a", gradtx.Role("hidden"))


def test_any_of_a_tuple():
    chosen = ("kernel", [re.compile("^x"), lambda path, leaf: path == "y"])
    assert [p for p in ("kernel", "x1", "y", "ax", "z") if means(chosen, p)] == ["kernel", "x1", "y"]


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (3, TypeError, "got 3"),
        (None, TypeError, "got None"),
        (str, TypeError, "got <class 'str'>"),
        (("a", 3), TypeError, "got 3"),
        (re.compile(b"a"), TypeError, "must be of str"),
        ((), ValueError, "an empty tuple"),
        ("", ValueError, r"write '\*\*'"),
        ("layers/", ValueError, r"write 'layers/\*\*'"),
        ("a[b", ValueError, r"'a\[b' is no glob.*write '\[\[\]'"),
        ("a[z-b]", ValueError, "is no glob"),
    ],
)
def test_what_is_no_choice(bad, error, message):
    with pytest.raises(error, match=message):
        gradtx.where(bad)


def test_errors_of_kinds():
    with pytest.raises(ValueError, match="of_kind: give kinds out of hidden, .* got 'norms'"):
        gradtx.of_kind("norm", "norms")
    with pytest.raises(ValueError, match="got none"):
        gradtx.of_kind()
    with pytest.raises(ValueError, match=r"of_kind\('norm'\) asks for the kind of the parameter at b.*with_roles"):
        gradtx.where(gradtx.of_kind("norm"))({"b": 1.0})


def test_a_predicate_must_answer():
    with pytest.raises(TypeError, match="longest_first must return True or False at a, got None"):

        def longest_first(path, leaf):
            return None

        longest_first.__qualname__ = "longest_first"
        means(longest_first, "a")


def test_a_selector_is_a_mask_function():
    params = {"a": {"kernel": jnp.ones(2), "bias": None}, "kernel": jnp.ones(3), "b": MaskedNode()}
    mask = gradtx.where("/a/*")(params)
    assert mask == {"a": {"kernel": True, "bias": None}, "kernel": False, "b": MaskedNode()}
    tx = gradtx.masked(gradtx.scale(3.0), gradtx.where("/a/*"))
    updates, _ = tx.update(params, tx.init(params), params)
    assert float(updates["a"]["kernel"][0]) == 3.0 and float(updates["kernel"][0]) == 1.0


def test_the_others():
    params = {"kernel": jnp.ones(2), "bias": jnp.ones(2), "none": None}
    assert (~gradtx.where("bias"))(params) == {"kernel": True, "bias": False, "none": None}
    assert ~~gradtx.where("bias") == gradtx.where("bias")
    assert gradtx.where(~gradtx.where("bias"))(params) == (~gradtx.where("bias"))(params)


def test_a_selector_knows_the_roles_in_boxes():
    norm, bias = gradtx.Role("norm", stack=0), gradtx.Role("bias")
    boxed = {"a": Boxed(jnp.ones((3, 4)), norm), "b": Boxed(jnp.ones(4), bias), "c": Boxed(MaskedNode(), bias)}
    boxed["d"] = Boxed(None, norm)
    assert gradtx.where.__module__ == "gradtx.core._selectors" and gradtx.where("a").of_boxes
    assert gradtx.where(gradtx.of_kind("norm"))(boxed) == {"a": True, "b": False, "c": False, "d": False}
    assert (~gradtx.where(gradtx.of_kind("norm")))(boxed) == {"a": False, "b": True, "c": False, "d": False}
    vectors = gradtx.where(lambda path, leaf: leaf.ndim == 1)
    assert vectors(boxed) == {"a": True, "b": True, "c": False, "d": False}


def test_selectors_print_what_they_choose():
    chosen = gradtx.where("a/*", gradtx.of_kind("norm"), re.compile("b"), ("c", float.is_integer))
    assert repr(~chosen) == "~where('a/*', of_kind('norm'), re.compile('b'), ('c', float.is_integer))"
    assert described(("a",)) == "('a',)"
    assert described(functools.partial(float.fromhex, 3, a=4)) == "partial(float.fromhex, 3, a=4)"
    assert pickle.loads(pickle.dumps(gradtx.where("a", gradtx.of_kind("norm")))) == gradtx.where(
        "a", gradtx.of_kind("norm")
    )


def test_paths_have_no_value_of_variables():
    nnx = pytest.importorskip("flax.nnx")
    meta = pytest.importorskip("flax.core.meta")
    tree = {
        "a": nnx.Param(jnp.ones(2)),
        "b": meta.Partitioned(jnp.ones(2), names=("x",)),
        "value": jnp.ones(2),
        "c": nnx.State({"value": nnx.Param(jnp.ones(3))}),
    }
    assert named_leaves(tree).names == ["a", "b", "c/value", "value"]
    assert named_leaves(nnx.to_pure_dict(nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0))))).names == ["bias", "kernel"]


def test_paths_of_attributes_named_value():
    eqx = pytest.importorskip("equinox")

    class Attention(eqx.Module):
        value: jax.Array

    assert named_leaves({"attention": Attention(jnp.ones(2))}).names == ["attention/value"]
    assert named_leaves(jnp.ones(2)).names == [""]


PARAMS = {"layers": {"kernel": 1.0, "bias": 2.0}}


@pytest.mark.parametrize(
    "make",
    [
        lambda mask: gradtx.adamw(1e-3, mask=mask).init(PARAMS),
        lambda mask: gradtx.lars(1e-3, trust_ratio_mask=mask).init(PARAMS),
        lambda mask: gradtx.masked(gradtx.sgd(0.1), mask).init(PARAMS),
        lambda mask: gradtx.freeze(mask).init(PARAMS),
        lambda mask: gradtx.split_frozen(PARAMS, mask),
        lambda mask: mask(PARAMS),
    ],
)
def test_a_mask_of_paths_that_are_nowhere(make):
    for mask in (gradtx.where("biass"), ~gradtx.where("biass")):
        with pytest.raises(
            ValueError, match=r"where\('biass'\): this matches no parameter; the closest are layers/bias"
        ):
            make(mask)
    with pytest.raises(ValueError, match=r"this matches no parameter but those below: write 'layers/\*\*'"):
        make(gradtx.where("layers"))
    with pytest.raises(ValueError, match="this matches no parameter; the parameters are layers/bias, layers/kernel"):
        make(~gradtx.where("scale", re.compile("gamma")))
    # One that matches is enough.
    make(~gradtx.where("bias", "norm*/**"))


def test_a_mask_of_what_a_model_may_lack():
    """Kinds and functions choose by what parameters are, and models without such parameters are common."""
    assert (~gradtx.where(lambda path, leaf: leaf.ndim == 3))({"w": np.ones(2)}) == {"w": True}
    boxed = {"w": Boxed(np.ones(2), gradtx.Role("hidden"))}
    assert gradtx.where(gradtx.of_kind("norm"), "scale")(boxed) == {"w": False}
    # What is hidden or None may be what is meant.
    assert gradtx.where("b")({"w": 1.0, "b": None}) == {"w": False, "b": None}
    tx = gradtx.partition({"a": gradtx.adamw(0.1, mask=~gradtx.where("b")), "z": gradtx.sgd(0.1)}, {"w": "a", "b": "z"})
    tx.init({"w": np.ones(2), "b": np.ones(2)})
