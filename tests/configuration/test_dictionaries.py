# SPDX-License-Identifier: Apache-2.0
"""What data say, what is said of data that are wrong, and of values that are no configuration."""

import jax
import jax.numpy as jnp
import optax
import pytest
import yaml

import gradtx as gt
from gradtx import schedules

TEXT = """
call: chain
transformations:
  - {call: clip_by_global_norm, max_norm: 1e0}
  - call: groups
    rules:
      - ["**/bias", {weight_decay: 0.0}]
    base:
      call: adamw
      learning_rate: 3e-4 * warmup(100).then(cosine(900))
      mu_dtype: bfloat16
"""


def test_a_file_by_hand():
    rate = 3e-4 * schedules.warmup(100).then(schedules.cosine(900))
    base = gt.adamw(rate, mu_dtype="bfloat16")
    want = gt.chain(gt.clip_by_global_norm(1.0), gt.groups((("**/bias", {"weight_decay": 0.0}),), base))
    assert gt.from_dict(yaml.safe_load(TEXT)) == want


def test_data_are_as_short_as_the_call():
    tx = gt.chain(gt.clip(1.0), gt.adamw(schedules.linear(10), mu_dtype="bfloat16"))
    assert gt.to_dict(tx) == {
        "call": "chain",
        "transformations": [
            {"call": "clip", "max_delta": 1.0},
            {"call": "adamw", "learning_rate": {"call": "linear", "steps": 10}, "mu_dtype": "bfloat16"},
        ],
    }
    assert gt.to_dict(gt.sgd(0.1), defaults=True) == {
        **{"call": "sgd", "learning_rate": 0.1, "momentum": None, "nesterov": False, "accumulator_dtype": None}
    }


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ("adam(1)", "data must be a dictionary with a call, got 'adam.1.' .str.; from_string reads calls"),
        ({"cal": "adam"}, "data has no 'call'"),
        ({"call": 3}, "at the top: call must be the name of a factory, got 3"),
        ({"call": "adamm"}, "at the top: adamm is no name that a configuration may call; the closest are adam"),
        ({"call": "adam"}, "at the top: adam: missing a required argument: 'learning_rate'"),
        ({"call": "adam", "learning_rate": 1, "b1": 2}, r"at the top: adam: b1 must be in \[0, 1\), got 2"),
        (
            {"call": "adam", "learning_rate": "x"},
            "at learning_rate: adam: learning_rate must be .* got 'x': .* x is no",
        ),
        (
            {"call": "chain", "transformations": [{"call": "clip"}]},
            r"at transformations\[0\]: clip: missing a required",
        ),
        (
            {"call": "chain", "transformations": {"call": "adam", "learning_rate": 1}},
            "transformations of chain must be a",
        ),
        ({"call": "masked", "inner": {"call": "os.system"}, "mask": True}, "at inner: os.system is no name"),
        (
            {"call": "masked", "inner": {"call": "identity"}, "mask": {"w": {"call": "eval"}}},
            r"at mask\['w'\]: eval is no",
        ),
        ({"call": "stateless", "f": {"call": "function", "name": "os.remove"}}, "at f: os.remove is no name"),
        ({"call": "stateless", "f": {"call": "function"}}, "at f: a function is given by its name"),
        ({"call": "clip", "max_delta": {"call": "float", "value": "1"}}, "at max_delta: float: value must be 'inf'"),
        ({"call": "clip", "max_delta": {"call": "Array", "value": "a"}}, "at max_delta: Array: could not convert"),
        ({"call": "clip", 3: 4}, "at the top: the arguments of clip have names, got 3"),
        (
            {
                "call": "zero",
                "inner": {"call": "identity"},
                "mesh": {"call": "Mesh", "axis_sizes": [999], "axis_names": ["a"]},
            },
            r"at mesh: Mesh: axis_sizes \(999,\) need 999 devices",
        ),
    ],
)
def test_wrong_data(data, error):
    with pytest.raises((TypeError, ValueError), match=f"^from_dict: .*{error}"):
        gt.from_dict(data)


def a_function(params):
    return params


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (
            gt.chain(gt.clip(1.0), gt.adam(lambda t: 0.1)),
            r"transformations\[1\].learning_rate is the function .*lambda",
        ),
        (gt.masked(gt.adam(0.1), a_function), "mask is the function a_function, .* names={'a_function': ...}"),
        (
            gt.groups([("w", {"learning_rate": lambda t: 1.0})], gt.adam(0.1)),
            r"rules\[0\]\[1\]\['learning_rate'\] is the",
        ),
        (gt.chain(optax.sgd(0.1)), r"transformations\[0\] is a transformation that no factory of gradtx made"),
        (gt.GradientTransformation(a_function, a_function), "value is a transformation that no factory of gradtx made"),
        (gt.adam(jnp.asarray([0.1])).replace(b1=0.5).init, "value is the function"),
        (gt.masked(gt.adam(0.1), {"w": None, 1j: True}), "the key 1j of mask is 1j"),
        (3, "value must be a transformation"),
    ],
)
def test_what_is_no_configuration(value, error):
    with pytest.raises(TypeError, match=f"^to_dict: {error}"):
        gt.to_dict(value)


def test_traced_values():
    @jax.jit
    def configured(rate):
        with pytest.raises(TypeError, match=r"to_dict: transformations\[0\].learning_rate is a traced value"):
            gt.to_dict(gt.chain(gt.sgd(rate)))
        return rate

    configured(0.1)


def test_functions_with_names():
    tx = gt.masked(gt.adam(0.1), a_function)
    names = {"chosen": a_function}
    assert gt.to_dict(tx, names=names)["mask"] == {"call": "function", "name": "chosen"}
    assert gt.from_dict(gt.to_dict(tx, names=names), names=names) == tx
    with pytest.raises(ValueError, match="from_dict: at mask: chosen is no name"):
        gt.from_dict(gt.to_dict(tx, names=names))


def test_a_mesh_of_other_devices():
    devices = jax.devices()[::-1]
    tx = gt.sharding.zero(gt.adam(0.1), "data", mesh=jax.sharding.Mesh(devices, ("data",)))
    with pytest.raises(TypeError, match="to_dict: mesh is a mesh of devices in an order of its own"):
        gt.to_dict(tx)
