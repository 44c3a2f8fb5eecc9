# SPDX-License-Identifier: Apache-2.0
"""Every value that prints as a call is read from what it prints, and from what `to_dict` says, JSON and YAML."""

import collections
import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from jax.sharding import PartitionSpec

import gradtx as gt
from gradtx import precision, schedules
from gradtx.core._calls import FACTORIES, Factory
from gradtx.schedules import WrappedSchedule
from support import registry
from support.schedules import CASES

NAMES = {f.__name__: f for f in registry.FUNCTIONS}
PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}

RATE = schedules.warmup(10).then(schedules.cosine(90, end=0.1)) * 3e-4
ROLES = (("w", gt.Role("hidden", stack=(0,), in_axes=-2, out_axes=-1, heads=1, blocks=(2, 4))), ("**", gt.Role()))
VALUES = [
    gt.chain(gt.clip_by_global_norm(1.0), gt.adamw(RATE, mask=~gt.where("bias", "*norm*/**"))),
    gt.named_chain(("clip", gt.clip(1.0)), ("rate", gt.scale_by_lr(0.1))),
    gt.adamw(1e-3, mask=gt.where(re.compile("a/b", re.IGNORECASE | re.MULTILINE), ("x", gt.of_kind("norm", "bias")))),
    gt.with_roles(ROLES, gt.muon(0.02)),
    gt.with_roles(gt.infer_roles, gt.muon(0.02)),
    gt.with_roles([("a/**", functools.partial(gt.infer_roles, stack=0)), ("**", gt.infer_roles)], gt.muon(0.02)),
    gt.MultiSteps(
        gt.sgd(0.1), 2, should_skip_update_fn=functools.partial(gt.skipping.skip_large_updates, max_squared_norm=9.0)
    ),
    gt.with_roles(gt.as_rules({"w": gt.Role("norm"), "b[0]": None}), gt.adam(0.1)),
    gt.with_roles({"w": gt.Role("hidden"), "b": gt.Role("bias")}, gt.adam(0.1)),
    gt.groups([("b", {"learning_rate": gt.times(RATE), "b1": 0.8}), ("c", "frozen"), ("d", gt.sgd(0.1))], gt.adam(0.1)),
    gt.groups((("**", {"learning_rate": gt.times(2.0) * gt.layerwise_decay(0.9) * gt.mup(PARAMS)}),), gt.adam(0.1)),
    gt.stored(gt.adam(0.1), {"mu": precision.int8(64), "nu": [("w", precision.bfloat16()), ("**", precision.int4())]}),
    gt.stored(gt.shampoo(0.1), precision.symmetric()),
    gt.guard(gt.adam(0.1), gt.skipping.norm_spike(z=4.0), gt.skipping.loss_spike(8, warmup=4)),
    gt.MultiSteps(gt.adam(0.1), 4, averaged=("value",), accumulator_dtype=jnp.bfloat16),
    gt.inject_hyperparams(gt.adamw, "b1", jnp.float32)(RATE, b2=0.99, weight_decay=np.float32(0.1)),
    gt.inject_hyperparams(gt.adam)(learning_rate=WrappedSchedule(RATE)),
    gt.scale_by_muon(weight_dimension_numbers={"w": gt.MuonDimensionNumbers((0, 1), ()), "b": None}),
    gt.partition({"a": gt.adam(0.1), "call": gt.sgd(0.1)}, {"w": "a", "b": "call"}),
    gt.masked(gt.adam(0.1), [True, (False, None)]),
    gt.masked(gt.adam(0.1), collections.OrderedDict(w=True, b=np.bool_(False))),
    gt.sharding.over_axes(gt.adam(0.1), {"w": PartitionSpec("x", None, ("y", "z"))}),
    gt.piecewise_constant_schedule(1.0, {4: 0.5, 10: 0.1}),
    gt.adam(jnp.asarray(0.1234567)),
    gt.adam(jnp.asarray([[0.1234567, 1e-8], [1 / 3, 0.0]], jnp.float32)),
    gt.adam(jnp.bfloat16(0.1), b1=np.float64(0.9), b2=np.float32(0.99), eps=np.asarray([1 / 3, 1e-9])),
    gt.add_noise(0.1, 0.5, jax.random.key(3)),
    gt.add_noise(0.1, 0.5, jax.random.PRNGKey(3)),
    gt.clip_by_global_norm(float("inf")),
    gt.adam(2, mu_dtype="bfloat16"),
    gt.Role("norm", stack=0),
    precision.float8(),
    gt.of_kind("norm"),
    ~gt.where("a"),
]


@pytest.mark.parametrize("name", [n for n in registry.FACTORIES if n not in registry.WITHOUT_EXAMPLE])
def test_every_factory(name: str):
    check(registry.example(name))


@pytest.mark.parametrize("value", VALUES, ids=lambda x: repr(x)[:60])
def test_values(value):
    check(value)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.call)
def test_every_schedule(case):
    value = gt.from_string(case.call)
    assert repr(value) == case.call
    check(value)


def check(value):
    """The value is read again from text, JSON and YAML, with the defaults written out and without."""
    assert gt.from_string(repr(value), names=NAMES) == value
    for defaults in (False, True):
        data = gt.to_dict(value, defaults=defaults, names=NAMES)
        of_json = json.loads(json.dumps(data, allow_nan=False))
        assert of_json == data == yaml.safe_load(yaml.safe_dump(data))
        assert gt.from_dict(of_json, names=NAMES) == value
    assert not gt.diff(value, gt.to_dict(value, names=NAMES), names=NAMES)
    assert gt.fingerprint(value, names=NAMES) == gt.fingerprint(data, names=NAMES)


def test_a_factory_of_a_user():
    @gt.transformation
    def halved_for_configuration(learning_rate: gt.typing.NonNegative, *, after: int = 0):
        return gt.sgd(learning_rate)

    tx = gt.chain(halved_for_configuration(0.1, after=2))
    assert gt.from_string(repr(tx)) == tx == gt.from_dict(gt.to_dict(tx))
    assert gt.to_dict(tx)["transformations"] == [{"call": "halved_for_configuration", "learning_rate": 0.1, "after": 2}]


def test_arguments_without_an_annotation():
    @gt.transformation
    def anything_for_configuration(x, *more, **others):
        return gt.identity()

    make = anything_for_configuration
    check(make(jnp.bfloat16, np.float32, np.dtype("float32"), jnp.dtype("bfloat16"), other=[1, (2,)]))
    check(make({"b": 1, 3: (None, True)}, collections.OrderedDict(b=1, a=2)))
    check(make("x", -1.5e-300, float("-inf"), a={}, b=[], c=(), d={"call": {"call": 3}}))
    check(make(np.arange(6).reshape(2, 3), jnp.zeros((2, 0)), np.bool_(True), np.asarray([True, False])))


def test_two_factories_of_one_name_have_their_modules():
    def make(module):
        def twice_for_configuration(learning_rate: gt.typing.NonNegative):
            return gt.sgd(learning_rate)

        twice_for_configuration.__module__, twice_for_configuration.__qualname__ = module, "twice_for_configuration"
        return gt.transformation(twice_for_configuration)

    one, other = make("one"), make("other")
    assert gt.to_dict(one(0.1))["call"] == "one.twice_for_configuration"
    assert gt.from_string("other.twice_for_configuration(0.1)") == other(0.1) == gt.from_dict(gt.to_dict(other(0.1)))
    with pytest.raises(ValueError, match="column 1: twice_for_configuration is no name.* closest are one"):
        gt.from_string("twice_for_configuration(0.1)")
    assert gt.from_string("twice_for_configuration(0.1)", names={"twice_for_configuration": other}) == other(0.1)


def test_names_of_calls_differ():
    """In text no name means two things; in data, none is that of an argument."""
    own = [f for f in FACTORIES.values() if f.module.startswith("gradtx.")]
    counts = collections.Counter(f.name for f in own if "self" not in f.signature.parameters)
    assert [name for name, n in counts.items() if n > 1] == []
    assert not [f.name for f in own if isinstance(f, Factory) and "call" in f.signature.parameters]
