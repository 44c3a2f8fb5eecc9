# SPDX-License-Identifier: Apache-2.0
"""A value as plain data: what JSON and YAML hold."""

import dataclasses
import functools
import math
from collections import OrderedDict
from typing import Any

import numpy as np
from jax.core import Tracer

from gradtx.configuration._constants import apart
from gradtx.configuration._names import FUNCTION, Known, Maker, Names
from gradtx.core._calls import Value, freeze
from gradtx.core._checked import checked
from gradtx.core._nesting import is_factory, is_transformation
from gradtx.core._ranges import Floating
from gradtx.core._selectors import described
from gradtx.core._texts import sorts


@checked
def to_dict(value: Any, *, defaults: bool = False, names: Names = None) -> dict[str, Any]:
    """A transformation as plain data, `{"call": "adamw", "learning_rate": 0.001}`: dictionaries, lists and constants.

    So is a schedule, a role, a codec, a selector, a rule of `guard`, and each of these inside of another. `from_dict`
    makes the same value of it again, also of what `json` and YAML make of it. A list stands for a tuple; what JSON has
    no sign for is a call of its own: `{"call": "Array", "value": [0.1, 0.2], "dtype": "float32"}`.

    Args:
      value: the transformation, or another value that prints as a call.
      defaults: whether to write arguments that have their default, which another version of gradtx might change.
      names: names for functions of yours that are arguments, `{"is_matrix": is_matrix}`; public functions of gradtx
        have theirs.

    Raises:
      TypeError: for what is no configuration, with its place: a function without a name, a transformation made by hand
        or by another library, a traced value.
    """
    return data_of("to_dict", "value", value, defaults, names)


def data_of(where: str, argument: str, value: Any, defaults: bool, names: Names) -> dict[str, Any]:
    """What `to_dict` returns, with errors of the argument of the function `where`."""
    check_called(f"{where}: {argument}", value)
    data = Writer(Known(where, names), defaults, root=argument).data(value, "")
    if not is_made(data):
        what = "a transformation or another value made by a call"
        raise TypeError(f"{where}: {argument} must be {what}, got {value!r}")
    return data


def check_called(where: str, value: Any) -> None:
    """Raises an error for a factory that was not called, whose name is data, but not what was meant."""
    if is_factory(value):
        raise TypeError(f"{where} must be a transformation, got the factory {value.__name__}: call it")


def is_made(data: Any) -> bool:
    """Whether data are a call that says a value, and no number, list, dictionary or function."""
    return isinstance(data, dict) and data.get("call") not in (None, FUNCTION, "dict", "list", "float", "scalar_type")


@dataclasses.dataclass(frozen=True)
class Opaque:
    """Stands in data for what is no configuration, where data are only compared and shown."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and freeze(self.value) == freeze(other.value)

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return described(self.value)


@dataclasses.dataclass(frozen=True)
class Writer:
    """Makes plain data of values; of what is no configuration an error, or `Opaque` data."""

    known: Known
    defaults: bool
    opaque: bool = False
    root: str = "value"

    def data(self, x: Any, place: str) -> Any:
        if x is None or isinstance(x, str | bool) or type(x) is int:
            return x
        if _is_finite(x):
            return float(x)
        if type(x) in (tuple, list) or getattr(type(x), "only_prints", False):
            items = [self.data(y, f"{place}[{i}]") for i, y in enumerate(x)]
            return {"call": "list", "items": items} if type(x) is list else items
        if type(x) in (dict, OrderedDict):
            return self._dictionary(x, place)
        if isinstance(x, int):  # a number with a name, such as a SkipReason
            return int(x)
        if (made := self._made(x, place)) is not None:
            return made
        return self._constant(x, place)

    def _dictionary(self, x: dict, place: str) -> Any:
        pairs = [(k, self.data(v, f"{place}[{k!r}]")) for k, v in x.items()]
        if type(x) is dict and all(type(k) is str and k != "call" for k in x):
            return dict(pairs)
        items = [[self.data(k, f"the key {k!r} of {place}"), v] for k, v in pairs]
        ordered = {"ordered": True} if type(x) is OrderedDict and sorts(x) else {}
        return {"call": "dict", "items": items, **ordered}

    def _made(self, x: Any, place: str) -> dict[str, Any] | None:
        """What a call made, by the name and arguments of the call."""
        if isinstance(x, Value) and x.factory is not None:
            maker = self.known.makers[self.known.name_of(x.factory)]
            return self._call(maker, dict(x.arguments), place)
        if hasattr(x, "made_by"):
            function, arguments = x.made_by
            return self._call(self.known.makers[function.__name__], arguments, place)
        if type(x) is functools.partial:
            fields = {"function": x.func, "args": x.args, "keywords": x.keywords}
            return self._call(self.known.makers["partial"], fields, place)
        maker = self.known.makers.get(type(x).__name__)
        if maker is None or maker.function is not type(x):
            return None
        fields = x._asdict() if hasattr(x, "_asdict") else {n: getattr(x, n) for n in maker.parameters}
        return self._call(maker, fields, place)

    def _call(self, maker: Maker, arguments: dict[str, Any], place: str) -> dict[str, Any]:
        found: dict[str, Any] = {"call": maker.name}
        for name, value in arguments.items():
            parameter = maker.parameters[name]
            if self.defaults or parameter.default is parameter.empty or freeze(value) != freeze(maker.default(name)):
                found[name] = self.argument(maker, name, value, f"{place}.{name}" if place else name)
        return found

    def argument(self, maker: Maker, name: str, value: Any, place: str) -> Any:
        """An argument of a call as data."""
        spec = None if maker.factory is None else maker.factory.specs.get(name)
        if isinstance(spec, Floating) and isinstance(value, np.dtype):
            return value.name
        return self.data(value, place)

    def _constant(self, x: Any, place: str) -> Any:
        constant, why = None, ""
        try:
            constant = apart(x)
        except ValueError as error:
            why = str(error)
        if constant is not None:
            return {"call": constant[0], **constant[1]}
        if (name := self.known.function_name(x)) is not None:
            return {"call": FUNCTION, "name": name}
        if self.opaque:
            return Opaque(x)
        raise TypeError(f"{self.known.where}: {place or self.root} {why or _why_not(x)}")


def _why_not(x: Any) -> str:
    if isinstance(x, Tracer):
        return f"is a traced value, {x!r}: take the configuration outside of jit, vmap and grad"
    if is_transformation(x):
        return (
            f"is a transformation that no factory of gradtx made, {described(x)}: make it in a function of yours under "
            f"@gradtx.transformation, whose call it then is"
        )
    if callable(x) and not isinstance(x, Value):
        name = getattr(x, "__name__", "")
        told = name if name.isidentifier() else "a_name"
        return (
            f"is the function {described(x)}, which is none that gradtx knows: give what a call makes, such as a "
            f"schedule or where(...), or give the function a name, names={{{told!r}: ...}}, here and to from_dict"
        )
    return f"is {x!r} ({type(x).__name__}), which is no configuration: give numbers, text, calls, or lists of them"


def _is_finite(x: Any) -> bool:
    return isinstance(x, float) and math.isfinite(x)
