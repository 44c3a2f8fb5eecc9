# SPDX-License-Identifier: Apache-2.0
"""The table of `describe`: what happens to each parameter."""

import io
import json
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx
from gradtx import Role, describe, times
from gradtx.describing._folding import slots_text, spanned
from support.transformers import linen_scanned

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}
LAYER = {"attn": {"kernel": jnp.ones((8, 8)), "bias": jnp.ones(8)}, "norm_1": {"scale": jnp.ones(8)}}
MODEL = {"embed": jnp.ones((11, 8)), "h": [LAYER | {"norm_2": {"scale": jnp.ones(8)}}] * 4}


def table(tx: Any, params: Any = PARAMS, **given: Any) -> str:
    """What is between the stages and the totals."""
    return str(describe(tx, params, **given)).split("\n\n")[1]


def matrices(params: Any) -> Any:
    return jax.tree.map(lambda p: p.ndim == 2, params)


def kinds(params: Any) -> Any:
    return jax.tree.map(lambda p: "matrix" if p.ndim == 2 else "rest", params)


def test_masked_weight_decay():
    assert (
        table(gradtx.adamw(1e-3, mask=matrices))
        == """\
parameter       shape   rule   rate  decay  slots           bytes
b               (3,)    adamw  x1    -      mu, nu float32     24
w               (2, 3)  adamw  x1    x1     mu, nu float32     48
(no parameter)                              count int32         4"""
    )


def test_groups_and_layers_as_one_row():
    rules = [
        ("h/3/**", {"learning_rate": times(0.5)}),
        (("bias", "scale"), {"weight_decay": 0.0}),
        ("embed", {"weight_decay": times(2)}),
        ("h/0/attn/kernel", "frozen"),
    ]
    tx = gradtx.groups(rules, gradtx.adamw(1e-3))
    assert (
        table(tx, MODEL)
        == """\
parameter            shape    rule    rate     decay  slots           bytes
embed                (11, 8)  adamw   x1       x2     mu, nu float32    704
h/*/attn/bias x4     (8,)     adamw   x0.5..1  -      mu, nu float32    256
h/0/attn/kernel      (8, 8)   frozen  -        -                          0
h/*/norm_*/scale x8  (8,)     adamw   x0.5..1  -      mu, nu float32    512
h/*/attn/kernel x3   (8, 8)   adamw   x0.5..1  x1     mu, nu float32  1,536
(no parameter)                                        count int32         4"""
    )
    rows = {row.path: row for row in describe(tx, MODEL).parameters}
    assert len(rows) == 17
    assert (rows["h/2/attn/kernel"].learning_rate, rows["h/3/attn/kernel"].learning_rate) == (1.0, 0.5)


@pytest.mark.slow
def test_the_table_of_a_scanned_transformer():
    params = linen_scanned().params
    guess = gradtx.infer_roles
    roles = [("blocks/**", partial(guess, stack=0)), ("**", partial(guess, stack=()))]
    rules = [
        ("blocks/**", {"learning_rate": gradtx.layerwise_decay(0.5)}),
        ("embed/**", "frozen"),
        ("lm_head/**", gradtx.sgd(0.1)),
    ]
    tx = gradtx.with_roles(roles, gradtx.groups(rules, gradtx.muon(0.02, weight_decay=0.01)))
    assert (
        table(tx, params) + "\n"
        == """\
parameter                           shape         role       rule    rate         decay  slots                     bytes
blocks/LayerNorm_*/bias x2          (3, 8)        bias x3    adam    x0.125..0.5  -      mu, nu float32              384
blocks/LayerNorm_*/scale x2         (3, 8)        norm x3    adam    x0.125..0.5  -      mu, nu float32              384
blocks/MultiHead...tion_0/key/bias  (3, 2, 4)     bias x3    adam    x0.125..0.5  -      mu, nu float32              192
blocks/MultiHead...on_0/key/kernel  (3, 8, 2, 4)  hidden x3  muon    x0.125..0.5  x1     mu float32                  768
blocks/MultiHead...tion_0/out/bias  (3, 8)        bias x3    adam    x0.125..0.5  -      mu, nu float32              192
blocks/MultiHead...on_0/out/kernel  (3, 2, 4, 8)  hidden x3  muon    x0.125..0.5  x1     mu float32                  768
blocks/MultiHead...on_0/query/bias  (3, 2, 4)     bias x3    adam    x0.125..0.5  -      mu, nu float32              192
blocks/MultiHead..._0/query/kernel  (3, 8, 2, 4)  hidden x3  muon    x0.125..0.5  x1     mu float32                  768
blocks/MultiHead...on_0/value/bias  (3, 2, 4)     bias x3    adam    x0.125..0.5  -      mu, nu float32              192
blocks/MultiHead..._0/value/kernel  (3, 8, 2, 4)  hidden x3  muon    x0.125..0.5  x1     mu float32                  768
blocks/down/bias                    (3, 8)        bias x3    adam    x0.125..0.5  -      mu, nu float32              192
blocks/down/kernel                  (3, 16, 8)    hidden x3  muon    x0.125..0.5  x1     mu float32                1,536
blocks/up/bias                      (3, 16)       bias x3    adam    x0.125..0.5  -      mu, nu float32              384
blocks/up/kernel                    (3, 8, 16)    hidden x3  muon    x0.125..0.5  x1     mu float32                1,536
embed/embedding                     (11, 8)       embedding  frozen  -            -                                    0
final_norm/bias                     (8,)          bias       adam    x1           -      mu, nu float32               64
final_norm/scale                    (8,)          norm       adam    x1           -      mu, nu float32               64
lm_head/bias                        (11,)         bias       sgd     x1           -                                    0
lm_head/kernel                      (8, 11)       head       sgd     x1           -                                    0
pos_embedding                       (5, 8)        embedding  adam    x1           -      mu, nu float32              320
(no parameter)                                                                           count int32...fs float32     20
"""
    )
    row = next(row for row in describe(tx, params).parameters if row.path == "blocks/up/kernel")
    assert (row.role, row.learning_rate) == (Role("hidden", (0,), (-2,), (-1,)), (0.125, 0.5))


OPTIMIZERS = {
    "a recipe": (gradtx.sgd(0.1), ("sgd", "sgd")),
    "behind a clip": (gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(0.1)), ("adam", "adam")),
    "stages": (gradtx.chain(gradtx.scale_by_adam(), gradtx.scale(-0.1)), ("scale_by_adam", "scale_by_adam")),
    "stages without state": (gradtx.chain(gradtx.clip(1.0), gradtx.scale(-0.1)), ("clip + scale", "clip + scale")),
    "two optimizers": (gradtx.graft(gradtx.adam(0.1), gradtx.sgd(0.1)), ("adam + sgd", "adam + sgd")),
    "a wrapper": (gradtx.MultiSteps(gradtx.adam(0.1), 2), ("adam", "adam")),
    "partition": (gradtx.partition({"matrix": gradtx.lion(0.1), "rest": gradtx.sgd(0.1)}, kinds), ("lion", "sgd")),
    "labels of chains": (
        gradtx.partition({"matrix": gradtx.chain(gradtx.ema(0.9)), "rest": gradtx.sgd(0.1)}, kinds),
        ("matrix", "sgd"),
    ),
    "muon": (gradtx.muon(0.1), ("muon", "adam")),
    "masked": (gradtx.masked(gradtx.adam(0.1), matrices), ("adam", None)),
    "frozen": (gradtx.chain(gradtx.adam(0.1), gradtx.freeze({"w": True, "b": False})), ("frozen", "adam")),
    "selective": (gradtx.selective_transform(gradtx.adam(0.1), freeze_mask=matrices), ("frozen", "adam")),
    "set to zero": (
        gradtx.partition({"matrix": gradtx.set_to_zero(), "rest": gradtx.adam(0.1)}, kinds),
        ("frozen", "adam"),
    ),
    "hyperparameters in the state": (gradtx.inject_hyperparams(gradtx.adamw)(0.1), ("adamw", "adamw")),
    "of optax": (optax.adam(0.1), ("optax.chain", "optax.chain")),
    "of optax in a chain": (gradtx.chain(gradtx.clip(1.0), optax.adam(0.1)), ("optax.chain", "optax.chain")),
    "another tree": (gradtx.flatten(gradtx.adam(0.1)), ("adam", "adam")),
}


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_the_rule_of_a_parameter(case: str):
    tx, rules = OPTIMIZERS[case]
    rows = {row.path: row for row in describe(tx, PARAMS).parameters}
    assert (rows["w"].rule, rows["b"].rule) == rules
    for row in rows.values():
        assert (row.learning_rate is None) == (row.rule in (None, "frozen"))


def test_a_transformation_of_others():
    assert (
        str(describe(optax.adam(0.1), PARAMS)).partition("\n\n")[2]
        == """\
parameter       shape   rule         rate  decay  slots           bytes
b               (3,)    optax.chain  x1    -      mu, nu float32     24
w               (2, 3)  optax.chain  x1    -      mu, nu float32     48
(no parameter)                                    count int32         4

76 bytes of state for 9 parameter elements: 8.444 each"""
    )


def multiples(tx: Any, params: Any = PARAMS) -> dict[str, tuple]:
    return {row.path: (row.learning_rate, row.weight_decay) for row in describe(tx, params).parameters}


def test_what_has_no_parameter_is_named():
    """A model without biases is no mistake, a label that was to have some may be one."""
    params = {"w": jnp.ones((2, 2)), "v": jnp.ones((2, 2))}
    labelled = gradtx.partition({"a": gradtx.adam(0.1), "b": gradtx.chain(gradtx.muon(0.1), gradtx.sgd(0.1))}, "a")
    found = describe(gradtx.chain(labelled, gradtx.muon(0.1)), params)
    assert found.idle == ("transforms.b", "transforms.adam")
    assert str(found).endswith("each\nno parameter for transforms.b, transforms.adam")
    used = describe(gradtx.chain(labelled.replace(param_labels={"w": "a", "v": "b"}), gradtx.adam(0.1)), params)
    assert used.idle == ("transforms.adam",) and used.to_dict()["idle"] == ["transforms.adam"]
    assert "no parameter for" not in str(describe(gradtx.groups([("w", "frozen")], gradtx.adam(0.1)), params))


def test_schedules_of_groups():
    base = gradtx.adamw(gradtx.schedules.cosine(100) * 1e-3)
    rules = [
        ("w", {"learning_rate": times(0.1)}),
        ("b", {"learning_rate": gradtx.schedules.linear(10) * 1e-3, "weight_decay": 0.0}),
    ]
    assert multiples(gradtx.groups(rules, base)) == {"w": (0.1, 1.0), "b": ("own", None)}
    assert multiples(gradtx.groups([("b", {"learning_rate": 1e-3})], base)) == {"w": (1.0, 1.0), "b": ("own", 1.0)}
    decay = gradtx.adamw(1e-3, weight_decay=gradtx.schedules.cosine(100))
    assert multiples(gradtx.groups([("b", {"weight_decay": times(0)})], decay)) == {"w": (1.0, 1.0), "b": (1.0, None)}


def test_numbers_of_groups():
    assert multiples(gradtx.groups([("b", {"learning_rate": 3e-4})], gradtx.adamw(1e-3)))["b"] == (0.3, 1.0)
    assert multiples(gradtx.groups([("b", {"weight_decay": 0.1})], gradtx.adamw(1e-3, weight_decay=0.0))) == {
        "w": (1.0, None),
        "b": (1.0, "own"),
    }


def test_a_hyperparameter_that_does_not_reach_the_parameter():
    tx = gradtx.groups([("**", {"learning_rate": times(0.5)})], gradtx.muon(0.02, adam_learning_rate=3e-4))
    assert multiples(tx) == {"w": (0.5, None), "b": (0.5, None)}  # a multiple is one of both rates
    tx = gradtx.groups([("**", {"learning_rate": 0.01})], gradtx.muon(0.02, adam_learning_rate=3e-4))
    assert multiples(tx) == {"w": (0.5, None), "b": (1.0, None)}


def test_shardings():
    mesh = jax.make_mesh((1,), ("data",))
    params = {"w": jax.device_put(PARAMS["w"], NamedSharding(mesh, P(None, "data"))), "b": PARAMS["b"]}
    tx = gradtx.adam(0.1)
    expected = """\
parameter       shape   rule  rate  decay  slots           bytes  sharding
b               (3,)    adam  x1    -      mu, nu float32     24
w               (2, 3)  adam  x1    -      mu, nu float32     48  P(None, 'data')
(no parameter)                             count int32         4"""
    assert table(tx, params) == expected
    shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=p.sharding), params)
    assert table(tx, shapes) == expected
    state = tx.init(params)
    assert table(tx, params, state=state) == expected  # slots are sharded as the parameters are
    assert {s.sharding for s in describe(tx, params, state).slots if s.parameter == "w"} == {"P(None, 'data')"}
    moved = jax.device_put(state, NamedSharding(mesh, P()))
    assert [row.sharding for row in describe(tx, params, moved).parameters] == [
        "-, state P()",
        "P(None, 'data'), state P()",
    ]


def test_a_state_of_another_transformation():
    with pytest.raises(ValueError, match="describe: this is not a state of tx for these parameters; migrate"):
        describe(gradtx.adam(0.1), PARAMS, gradtx.sgd(0.1, 0.9).init(PARAMS))


def test_other_dtypes_are_shown():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    assert table(gradtx.lion(0.1, mu_dtype=jnp.bfloat16), params).splitlines()[1:3] == [
        "b               (3,) bfloat16    lion  x1    x1     mu bfloat16      6",
        "w               (2, 3) bfloat16  lion  x1    x1     mu bfloat16     12",
    ]


def test_everything_is_plain_in_the_dictionary():
    roles = {"w": Role("hidden", in_axes=(0,), out_axes=(1,)), "b": Role("bias")}
    description = describe(gradtx.with_roles(roles, gradtx.adamw(0.1)), PARAMS)
    found = description.to_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["parameters"][1] == {
        "path": "w",
        "shape": [2, 3],
        "dtype": "float32",
        "role": {
            "kind": "hidden",
            "stack": [],
            "in_axes": [0],
            "out_axes": [1],
            "heads": None,
            "blocks": [],
            "kernel": [],
        },
        "rule": "adamw",
        "learning_rate": 1.0,
        "weight_decay": 1.0,
        "slots": [["mu", "float32"], ["nu", "float32"]],
        "state_bytes": 48,
        "sharding": "",
    }


def test_as_rich_text():
    console = pytest.importorskip("rich.console")
    console = console.Console(width=120, no_color=True, record=True, file=io.StringIO())
    description = describe(gradtx.adamw(0.1), {"[bold]w": jnp.ones(2)})
    console.print(description)
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    assert lines[0] == "adamw(0.1)" and lines[-1] == str(description).splitlines()[-1]
    assert (
        next(line for line in lines if "[bold]w" in line).split()
        == "[bold]w (2,) adamw x1 x1 mu, nu float32 16".split()
    )


@pytest.mark.parametrize(
    "slots, text",
    [
        ([], ""),
        ([("mu", "float32"), ("nu", "float32")], "mu, nu float32"),
        ([("mu", "bfloat16"), ("nu", "float32")], "mu bfloat16, nu float32"),
        ([("mu.codes", "int8"), ("mu.scale", "float32"), ("nu", "float32")], "mu int8+float32, nu float32"),
        ([("mu", "float32"), ("mu", "bfloat16")], "mu float32, mu bfloat16"),
        ([("mu[0]", "int8"), ("mu[1]", "int8")], "mu int8"),
        ([("[0]", "float32"), ("[1]", "float32")], "[0], [1] float32"),
    ],
)
def test_slots_as_text(slots: list, text: str):
    assert slots_text(slots) == text


@pytest.mark.parametrize(
    "multiples, text",
    [
        ([None, None], "-"),
        ([1.0, 1.0], "x1"),
        ([1.0, None, 0.25], "x0.25..1"),
        ([(0.1, 0.8), 0.5], "x0.1..0.8"),
        ([1.0, "own"], "own"),
    ],
)
def test_multiples_as_text(multiples: list, text: str):
    assert spanned(multiples) == text
