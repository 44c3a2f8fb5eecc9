# SPDX-License-Identifier: Apache-2.0
"""What `from_dict` takes, as a JSON schema made from the signatures."""

import inspect
import types
import typing
from typing import Any

import jax.numpy as jnp

from gradtx._groups._factors import Factor
from gradtx.configuration._constants import dictionary, sequence
from gradtx.configuration._names import FUNCTION, Known, Maker, Names
from gradtx.configuration._to_dict import Opaque, Writer
from gradtx.core._checked import checked
from gradtx.core._ranges import Floating, Range
from gradtx.core._transformation import GradientTransformation
from gradtx.schedules._schedule import Schedule

Schema = dict[str, Any]

_SIMPLE: dict[Any, Schema] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    type(None): {"type": "null"},
}


@checked
def json_schema(*, names: Names = None) -> Schema:
    """The JSON schema of `to_dict` and `from_dict`, for editors and for checks of files: each factory with the ranges,
    choices and defaults of its arguments, as its signature says them.

    `$defs` has an entry for each name that can be called, and "Transformation", "Schedule", "Multiple", "Call" and
    "Value" for any of a kind. Where a number is asked for, text is a number or a schedule, as in `from_dict`.

    Args:
      names: factories of yours, by name, as in `from_dict`; those of transformations, schedules and rules that are
        defined already are in it without.
    """
    known = Known("json_schema", names)
    writer = Writer(known, defaults=False, opaque=True)
    makers = dict(sorted(known.makers.items()))
    calls = {name: _of_call(maker, writer) for name, maker in makers.items()}
    calls[FUNCTION] = _call(FUNCTION, {"name": {"enum": sorted(known.functions)}}, ["name"], "A function, not called.")
    kinds = {"Transformation": GradientTransformation, "Schedule": Schedule, "Multiple": Factor}
    groups = {kind: [n for n, m in makers.items() if _makes(m, cls)] for kind, cls in kinds.items()}
    groups["Schedule"] += [name for name in makers if name.startswith("Schedule.")]
    groups["Multiple"] += ["layerwise_decay", "mup"]
    groups["Numbers"] = ["Array", "array", "float"]
    groups["Moving"] = ["Numbers", "Schedule", FUNCTION]
    groups["Call"] = list(calls)
    simple = ["null", "boolean", "number", "string"]
    plain = {"type": "object", "not": {"required": ["call"]}, "additionalProperties": _ref("Value")}
    values = [{"type": simple}, {"type": "array", "items": _ref("Value")}, _ref("Call"), plain]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A transformation of gradtx",
        **_ref("Call"),
        "$defs": {
            **{kind: {"anyOf": list(map(_ref, found))} for kind, found in groups.items()},
            "Value": {"anyOf": values},
            **calls,
        },
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _makes(maker: Maker, kind: type) -> bool:
    return maker.factory is not None and issubclass(maker.factory.kind, kind)


def _of_call(maker: Maker, writer: Writer) -> Schema:
    properties = {name: _of_argument(maker, p, writer) for name, p in maker.parameters.items()}
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = [n for n, p in maker.parameters.items() if p.default is p.empty and p.kind not in optional]
    return _call(maker.name, properties, required, inspect.getdoc(maker.function) or "")


def _call(name: str, properties: Schema, required: list[str], documentation: str) -> Schema:
    return {
        "type": "object",
        "description": documentation.partition("\n\n")[0].replace("\n", " "),
        "properties": {"call": {"const": name}, **properties},
        "required": ["call", *required],
        "additionalProperties": False,
    }


def _of_argument(maker: Maker, parameter: inspect.Parameter, writer: Writer) -> Schema:
    if parameter.kind is parameter.VAR_POSITIONAL:
        return {"type": "array", "items": _ref("Value")}
    if parameter.kind is parameter.VAR_KEYWORD:
        return {"type": "object", "additionalProperties": _ref("Value")}
    schema = _of_annotation(maker, parameter)
    if parameter.default is parameter.empty:
        return schema
    data = writer.argument(maker, parameter.name, maker.default(parameter.name), parameter.name)
    return schema if isinstance(data, Opaque) else {**schema, "default": data}


def _of_annotation(maker: Maker, parameter: inspect.Parameter) -> Schema:
    factory, name = maker.factory, parameter.name
    if maker.function in (sequence, dictionary) and name == "items":
        return {"type": "array", "items": _ref("Value")}
    if factory is None:
        return _ref("Value")
    spec, hint = factory.specs.get(name), factory.hints.get(name)
    optional = type(None) in typing.get_args(hint) or parameter.default is None
    if isinstance(spec, Floating):
        return {"enum": [*_dtypes(), None]}
    if isinstance(spec, Range):
        kinds: list[Schema] = [{"type": "integer" if spec.integer or spec.whole else "number"}, {"type": "string"}]
        if name in factory.hyperparameters:
            kinds += [_ref("Moving" if factory.schedules else "Numbers")]
        return {"anyOf": [*kinds, *([{"type": "null"}] if optional else [])], **_of_range(spec)}
    return _of_hint(hint)


def _of_range(spec: Range) -> Schema:
    """The bounds, which concern numbers only."""
    schema: Schema = {}
    if spec.low != -float("inf"):
        schema["exclusiveMinimum" if spec.low_open else "minimum"] = spec.low
    if spec.high != float("inf"):
        schema["exclusiveMaximum" if spec.high_open else "maximum"] = spec.high
    return schema


def _of_hint(hint: Any) -> Schema:
    """Flags, choices and plain types; for all other annotations any value."""
    if hint in _SIMPLE:
        return dict(_SIMPLE[hint])
    if typing.get_origin(hint) is typing.Literal:
        return {"enum": list(typing.get_args(hint))}
    if isinstance(hint, types.UnionType) and all(member in _SIMPLE for member in typing.get_args(hint)):
        return {"anyOf": [dict(_SIMPLE[member]) for member in typing.get_args(hint)]}
    return _ref("Value")


def _dtypes() -> list[str]:
    """The names of the floating dtypes."""
    scalars = (x for x in vars(jnp).values() if isinstance(x, type(jnp.float32)))
    return sorted({jnp.dtype(x).name for x in scalars if jnp.issubdtype(x, jnp.inexact)})
