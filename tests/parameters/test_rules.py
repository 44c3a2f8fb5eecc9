# SPDX-License-Identifier: Apache-2.0
"""Roles by rules: the first that matches, nothing left over on either side."""

import functools
import random
import re

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx import Role
from gradtx._roles._rules import check_rules
from gradtx.core._prefixes import MaskedNode
from gradtx.core._roles import Boxed

PARAMS = {
    "embed": jnp.ones((7, 4)),
    "layers": {"mlp": {"kernel": jnp.ones((3, 4, 5)), "bias": jnp.ones((3, 5))}, "norm": {"scale": jnp.ones((3, 4))}},
}
HIDDEN, BIAS, NORM = Role("hidden", 0, -2, -1), Role("bias", 0), Role("norm", 0)
RULES = [("embed", Role("embedding")), ("bias", BIAS), ("norm/*", NORM), ("layers/**", HIDDEN)]
EXPECTED = {"embed": Role("embedding"), "layers": {"mlp": {"kernel": HIDDEN, "bias": BIAS}, "norm": {"scale": NORM}}}


def test_the_first_rule_that_matches():
    assert gradtx.roles(PARAMS, RULES) == EXPECTED
    assert gradtx.roles(PARAMS, tuple(map(list, RULES))) == EXPECTED
    swapped = gradtx.roles(PARAMS, [("**", Role("other"))])
    assert set(jax.tree.leaves(swapped)) == {Role("other")}


def test_shapes_are_enough():
    assert gradtx.roles(jax.eval_shape(lambda: PARAMS), RULES) == EXPECTED


def test_all_ways_to_choose():
    rules = [
        (re.compile("^emb"), Role("embedding")),
        (lambda path, leaf: leaf.shape == (3, 5), BIAS),
        (("norm/*", "nothing"), NORM),
        (~gradtx.where("embed"), HIDDEN),
    ]
    assert gradtx.roles(PARAMS, rules) == EXPECTED


def test_the_order_of_insertion_is_nothing():
    rng = random.Random(0)

    def shuffled(tree):
        if not isinstance(tree, dict):
            return tree
        return {k: shuffled(tree[k]) for k in rng.sample(sorted(tree), len(tree))}

    for _ in range(5):
        assert gradtx.roles(shuffled(PARAMS), RULES) == EXPECTED


def test_none_and_masked_parameters_have_no_role():
    params = {"a": jnp.ones(2), "b": None, "c": MaskedNode()}
    assert gradtx.roles(params, [("a", BIAS)]) == {"a": BIAS, "b": None, "c": MaskedNode()}
    with pytest.raises(
        ValueError, match=r"rules without use: \('b', Role\('bias', stack=\(0,\)\)\), which matches no p"
    ):
        gradtx.roles(params, [("a", BIAS), ("b", BIAS)])


def test_boxed_parameters():
    params = {"a": Boxed(jnp.ones((2, 3)), Role()), "b": Boxed(MaskedNode(), Role()), "c": Boxed(None, Role())}
    assert gradtx.roles(params, [("**", NORM)]) == {"a": NORM, "b": None, "c": None}
    assert gradtx.roles(params, gradtx.infer_roles) == {"a": Role(), "b": None, "c": None}


def test_parameters_without_rule():
    with pytest.raises(ValueError, match=r"roles: no rule for embed, layers/mlp/bias, layers/mlp/kernel; add one"):
        gradtx.roles(PARAMS, [("scale", NORM)])
    with pytest.raises(ValueError, match=r"roles: no rule for embed, layers/mlp/bias, layers/mlp/kernel and 1 more;"):
        gradtx.roles(PARAMS, ())


def test_rules_without_use():
    with pytest.raises(
        ValueError, match=r"without use: \('kernels', Role\('other'\)\), which matches no parameter; the c"
    ):
        gradtx.roles(PARAMS, [("kernels", Role()), *RULES])
    with pytest.raises(ValueError, match=r"which matches no parameter but those below: write 'layers/\*\*'"):
        gradtx.roles(PARAMS, [("layers", Role()), *RULES])
    with pytest.raises(ValueError, match=r"\('scale', .*as \('norm/\*', .*comes before it and has layers/norm/scale"):
        gradtx.roles(PARAMS, [*RULES, ("scale", NORM)])
    extra = [(f"x{i}", Role()) for i in range(5)]
    with pytest.raises(ValueError, match="x0.*x1.*x2.*; and 2 more$"):
        gradtx.roles(PARAMS, [*RULES, *extra])
    # Of a tree with holes not all rules have use.
    holes = {"embed": None, "layers": PARAMS["layers"]}
    assert gradtx.roles(holes, RULES, partial=True)["layers"] == EXPECTED["layers"]
    with pytest.raises(ValueError, match="no rule for embed"):
        gradtx.roles(PARAMS, RULES[1:], partial=True)


def test_roles_that_do_not_fit():
    message = (
        r"roles: the role of layers/mlp/bias, Role\('hidden', stack=\(2,\)\) by the rule \('layers/\*\*', .*\), "
        r"does not fit its shape \(3, 5\): stack names axis 2, but there are 2 axes"
    )
    with pytest.raises(ValueError, match=message):
        gradtx.roles(PARAMS, [("embed", Role()), ("layers/**", Role("hidden", stack=2))])
    with pytest.raises(ValueError, match=r"the role of embed, Role\('hidden', stack=\(5,\)\), does not fit"):
        gradtx.roles(PARAMS, {"embed": Role("hidden", 5), "layers": Role()})


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ("kernel", TypeError, "pairs of a choice of parameters and a Role, got 'kernel'"),
        (gradtx.where("kernel"), TypeError, "pairs"),
        (["kernel"], TypeError, r"rules\[0\] must be a pair"),
        ([("a", Role()), ("kernel", "hidden")], TypeError, r"rules\[1\] must be a pair"),
        ([(Role(), "kernel")], TypeError, r"rules\[0\] must be a pair"),
        ([(3, Role())], TypeError, r"rules\[0\]: parameters are chosen by a glob"),
        ([("a/", Role())], ValueError, r"rules\[0\]: the glob 'a/' matches no path"),
        ([(gradtx.of_kind("norm"), Role())], ValueError, r"rules\[0\] chooses by of_kind\('norm'\)"),
        ([("a", Role()), (("a", gradtx.where(gradtx.of_kind("norm"))), Role())], ValueError, r"rules\[1\] chooses by"),
        ({"kernel": "hidden"}, TypeError, r"must hold a Role at \['kernel'\], got 'hidden'"),
        (3, TypeError, "must hold a Role at the root, got 3"),
    ],
)
def test_what_are_no_rules(bad, error, message):
    with pytest.raises(error, match=f"here: .*{message}"):
        check_rules("here", bad)
    with pytest.raises(error, match=message):
        gradtx.roles(PARAMS, bad)


def test_checked_rules_are_rules():
    for rules in (RULES, EXPECTED, gradtx.infer_roles, [Role(), [Role()]]):
        checked = check_rules("here", rules)
        assert check_rules("here", checked) == checked
    assert check_rules("here", RULES) == tuple(RULES)


def test_a_tree_of_roles():
    assert gradtx.roles(PARAMS, EXPECTED) == EXPECTED
    assert gradtx.roles(PARAMS, Role()) == jax.tree.map(lambda _: Role(), PARAMS)
    assert gradtx.roles(PARAMS, {"embed": Role("embedding"), "layers": NORM})["layers"]["mlp"]["bias"] == NORM
    # A list of roles is a tree, too.
    params = [jnp.ones(2), (jnp.ones((2, 3)), None)]
    assert gradtx.roles(params, [Role("bias"), NORM]) == [Role("bias"), (NORM, None)]
    with pytest.raises(ValueError, match="the tree of roles has nothing for .*'layers'"):
        gradtx.roles(PARAMS, {"embed": Role()})
    with pytest.raises(ValueError, match="an entry at .*'more'.*, where there is no parameter"):
        gradtx.roles(PARAMS, {"embed": Role(), "layers": Role(), "more": Role()})


def test_a_function_of_the_parameters():
    def by_rank(params):
        return jax.tree.map(lambda p: Role("bias" if p.ndim < 2 else "hidden"), params)

    assert gradtx.roles(PARAMS, by_rank)["embed"] == Role("hidden")
    with pytest.raises(TypeError, match=r"what .*<lambda> returns must hold a Role at \['embed'\], got"):
        gradtx.roles(PARAMS, lambda params: params)


def test_a_function_in_the_place_of_a_role():
    seen = []

    def others(params):
        seen.append(params)
        return jax.tree.map(lambda p: Role("hidden", 0), params)

    found = gradtx.roles(PARAMS, [("embed", Role("embedding")), ("layers/**", others)])
    assert found["embed"] == Role("embedding")
    assert set(jax.tree.leaves(found["layers"])) == {Role("hidden", 0)}
    # It is asked once, of the parameters that its rule is for.
    assert len(seen) == 1 and seen[0]["embed"] is None and seen[0]["layers"]["norm"]["scale"].shape == (3, 4)
    stacked = functools.partial(gradtx.infer_roles, stack=0)
    assert gradtx.roles(PARAMS, [("layers/**", stacked), ("**", gradtx.infer_roles)])["layers"] == EXPECTED["layers"]
    with pytest.raises(ValueError, match=r"by the rule \('layers/\*\*', .*too_many\)"):

        def too_many(params):
            return jax.tree.map(lambda p: Role("hidden", 9), params)

        gradtx.roles(PARAMS, [("embed", Role()), ("layers/**", too_many)])


def test_one_parameter():
    assert gradtx.roles(jnp.ones(3), [("**", Role("hidden"))]) == Role("hidden")
    with pytest.raises(ValueError, match="no rule for the root"):
        gradtx.roles(jnp.ones(3), [("a", Role("hidden"))])


def test_roles_are_made_while_tracing():
    @jax.jit
    def f(params):
        assert gradtx.roles(params, RULES) == EXPECTED
        return 0

    f(PARAMS)


def test_rules_of_a_tree_can_be_printed_and_given_back():
    table = gradtx.as_rules(EXPECTED)
    assert isinstance(table, tuple)
    assert repr(table) == (
        "(\n"
        "    ('/embed', Role('embedding')),\n"
        "    ('/layers/mlp/bias', Role('bias', stack=(0,))),\n"
        "    ('/layers/mlp/kernel', Role('hidden', stack=(0,), in_axes=(-2,), out_axes=(-1,))),\n"
        "    ('/layers/norm/scale', Role('norm', stack=(0,))),\n"
        ")"
    )
    assert eval(repr(table), {"Role": Role}) == table
    assert gradtx.roles(PARAMS, table) == EXPECTED
    odd = {"a*": jnp.ones(2), "ab": jnp.ones(2), "[x]?": jnp.ones(2), "none": None}
    found = gradtx.roles(odd, [("/a[*]", Role("bias")), ("**", Role("hidden"))])
    assert gradtx.roles(odd, gradtx.as_rules(found)) == found
    assert gradtx.as_rules(Role("hidden", heads=-2)) == (("**", Role("hidden", heads=-2)),)
    assert repr(gradtx.as_rules({})) == "()"
    with pytest.raises(TypeError, match="as_rules: roles must hold a Role at a, got 3"):
        gradtx.as_rules({"a": 3})
