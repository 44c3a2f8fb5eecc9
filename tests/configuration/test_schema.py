# SPDX-License-Identifier: Apache-2.0
"""The JSON schema says what `from_dict` takes: checked by the few words of JSON Schema that it is made of."""

import json
from typing import Any

import pytest

import gradtx as gt
from support import registry
from support.schedules import CASES

NAMES = {f.__name__: f for f in registry.FUNCTIONS}
SCHEMA = gt.json_schema(names=NAMES)
TYPES = {
    "null": lambda x: x is None,
    "boolean": lambda x: isinstance(x, bool),
    "number": lambda x: isinstance(x, int | float) and not isinstance(x, bool),
    "integer": lambda x: isinstance(x, int | float) and not isinstance(x, bool) and x == int(x),
    "string": lambda x: isinstance(x, str),
    "array": lambda x: isinstance(x, list),
    "object": lambda x: isinstance(x, dict),
}
BOUNDS = {
    "minimum": lambda x, n: x >= n,
    "maximum": lambda x, n: x <= n,
    "exclusiveMinimum": lambda x, n: x > n,
    "exclusiveMaximum": lambda x, n: x < n,
}
NO_RULE = {"$schema", "$defs", "title", "description", "default"}


def valid(x: Any, schema: dict) -> bool:
    return all(name in NO_RULE or RULES[name](x, schema[name], schema) for name in schema)


def _object(x: Any, properties: dict, schema: dict) -> bool:
    return not isinstance(x, dict) or all(valid(x[n], s) for n, s in properties.items() if n in x)


def _others(x: Any, allowed: Any, schema: dict) -> bool:
    others = [x[n] for n in x if n not in schema.get("properties", {})] if isinstance(x, dict) else []
    return not others if allowed is False else all(valid(y, allowed) for y in others)


RULES = {
    "$ref": lambda x, name, _: valid(x, SCHEMA["$defs"][name.removeprefix("#/$defs/")]),
    "anyOf": lambda x, schemas, _: any(valid(x, s) for s in schemas),
    "not": lambda x, schema, _: not valid(x, schema),
    "type": lambda x, kinds, _: any(TYPES[k](x) for k in ([kinds] if isinstance(kinds, str) else kinds)),
    "const": lambda x, value, _: x == value,
    "enum": lambda x, values, _: x in values,
    "items": lambda x, schema, _: not isinstance(x, list) or all(valid(y, schema) for y in x),
    "required": lambda x, names, _: not isinstance(x, dict) or set(names) <= set(x),
    "properties": _object,
    "additionalProperties": _others,
    **{name: lambda x, n, _, holds=holds: not TYPES["number"](x) or holds(x, n) for name, holds in BOUNDS.items()},
}


def test_it_is_json():
    assert json.loads(json.dumps(SCHEMA, allow_nan=False)) == SCHEMA
    assert SCHEMA["$schema"].startswith("https://json-schema.org/")


def test_it_says_arguments_ranges_choices_and_defaults():
    adam = SCHEMA["$defs"]["adam"]
    assert adam["required"] == ["call", "learning_rate"] and adam["additionalProperties"] is False
    assert adam["description"].startswith("Adam: ")
    b1 = adam["properties"]["b1"]
    assert (b1["minimum"], b1["exclusiveMaximum"], b1["default"]) == (0.0, 1.0, 0.9)
    assert adam["properties"]["nesterov"] == {"type": "boolean", "default": False}
    assert {"bfloat16", "float32", None} <= set(adam["properties"]["mu_dtype"]["enum"])
    kind = SCHEMA["$defs"]["decay_weights"]["properties"]["kind"]
    assert kind["enum"] == ["independent", "decoupled", "corrected", "coupled"]
    named = {place for place in SCHEMA["$defs"]}
    assert set(registry.FACTORIES) <= named
    transformations = {x["$ref"].rpartition("/")[2] for x in SCHEMA["$defs"]["Transformation"]["anyOf"]}
    assert set(registry.FACTORIES) <= transformations and "linear" not in transformations


@pytest.mark.parametrize("defaults", [False, True])
def test_what_to_dict_makes_is_valid(defaults: bool):
    values = [registry.example(n) for n in registry.FACTORIES if n not in registry.WITHOUT_EXAMPLE]
    values += [gt.from_string(case.call) for case in CASES]
    wrong = [x for x in values if not valid(gt.to_dict(x, defaults=defaults, names=NAMES), SCHEMA)]
    assert wrong == []


@pytest.mark.parametrize(
    ("data", "right"),
    [
        ({"call": "adam", "learning_rate": 0.1}, True),
        ({"call": "adam", "learning_rate": "1e-3"}, True),
        ({"call": "adam", "learning_rate": {"call": "linear", "steps": 10}}, True),
        ({"call": "adam", "learning_rate": {"call": "adam", "learning_rate": 0.1}}, False),
        ({"call": "adam", "learning_rate": -0.1}, False),
        ({"call": "adam", "learning_rate": 0.1, "b1": 1.0}, False),
        ({"call": "adam", "learning_rate": 0.1, "beta1": 0.9}, False),
        ({"call": "adam", "learning_rate": 0.1, "mu_dtype": "int8"}, False),
        ({"call": "adam"}, False),
        ({"call": "adamm", "learning_rate": 0.1}, False),
        ({"call": "linear", "steps": 10, "end": {"call": "linear", "steps": 10}}, False),
        ({"call": "chain", "transformations": [{"call": "clip"}]}, False),
        ({"call": "chain", "transformations": [{"call": "clip", "max_delta": 1}]}, True),
        ({"call": "scale_by_soap", "precondition_frequency": 2.5}, False),
        ({"call": "stateless", "f": {"call": "function", "name": "halve_tree"}}, True),
        ({"call": "stateless", "f": {"call": "function", "name": "os.remove"}}, False),
        ({"call": "masked", "inner": {"call": "identity"}, "mask": {"a": [True, {"b": None}]}}, True),
    ],
)
def test_what_is_wrong_is_not_valid(data, right):
    assert valid(data, SCHEMA) == right


def test_factories_of_users():
    @gt.transformation
    def mine_for_the_schema(learning_rate: gt.typing.NonNegative, *, power: gt.typing.Positive = 2.0):
        return gt.sgd(learning_rate)

    assert mine_for_the_schema(0.1).factory is not None
    mine = gt.json_schema()["$defs"]["mine_for_the_schema"]["properties"]
    assert (mine["power"]["exclusiveMinimum"], mine["power"]["default"]) == (0.0, 2.0)
