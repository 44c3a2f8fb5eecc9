# SPDX-License-Identifier: Apache-2.0
"""What a configuration may call and name: factories, and the few other functions that make what factories take.

Nothing else is ever called, whatever a text or a file says.
"""

import dataclasses
import difflib
import functools
import inspect
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from jax.sharding import PartitionSpec

from gradtx import _front
from gradtx._groups._factors import layerwise_decay, mup
from gradtx.configuration._constants import (
    Array,
    Mesh,
    array,
    dictionary,
    dtype,
    number,
    pattern,
    scalar_type,
    sequence,
    wrap_key_data,
)
from gradtx.core._calls import FACTORIES, Factory
from gradtx.core._matrices import MuonDimensionNumbers
from gradtx.core._roles import Role
from gradtx.core._selectors import Selector, of_kind, where
from gradtx.core._sentences import listed
from gradtx.numerics._projected import GaLoreDimensionNumbers
from gradtx.precision._bfloat16 import bfloat16, float32
from gradtx.precision._companded8 import companded8
from gradtx.precision._float8 import float8
from gradtx.precision._int4 import int4
from gradtx.precision._int8 import int8
from gradtx.precision._symmetric import symmetric
from gradtx.schedules._stateful import WrappedSchedule
from gradtx.wrappers._hyperparameters import inject_hyperparams

Names = Mapping[str, Any] | None


@dataclasses.dataclass(frozen=True)
class Maker:
    """What may be called, by the name that stands in data, and the parameters of the call."""

    name: str
    function: Callable[..., Any]
    parameters: Mapping[str, inspect.Parameter]
    factory: Factory | None = None

    def default(self, name: str) -> Any:
        """The value of an argument that is not given."""
        return self.parameters[name].default if self.factory is None else self.factory.defaults[name]


def _injected(
    inner_factory: Any, static_args: Any = (), hyperparam_dtype: Any = None, args: Any = (), kwargs: Any = None
) -> Any:
    return inject_hyperparams(inner_factory, static_args, hyperparam_dtype)(*args, **(kwargs or {}))


def _partial(function: Any, args: Any = (), keywords: Any = None) -> Any:
    if not callable(function):
        raise TypeError(f"partial: function must be a function, got {function!r}")
    return functools.partial(function, *args, **(keywords or {}))


def _ordered(entries: Any = ()) -> OrderedDict:
    return OrderedDict(entries)


def _partitions(*partitions: Any) -> PartitionSpec:
    return PartitionSpec(*partitions)


def _invert(chosen: Any) -> Selector:
    if not isinstance(chosen, Selector):
        raise TypeError(f"only what where(...) selects can be inverted, got {chosen!r}")
    return ~chosen


_CODECS = (bfloat16, companded8, float32, float8, int4, int8, symmetric)
_OTHERS = (Role, where, of_kind, layerwise_decay, mup, MuonDimensionNumbers, GaLoreDimensionNumbers, WrappedSchedule)
_CALLED = {f.__name__: f for f in (*_CODECS, *_OTHERS)} | {
    "inject_hyperparams": _injected,
    "partial": _partial,
    "PartitionSpec": _partitions,
    "P": _partitions,
    "Mesh": Mesh,
    "Array": Array,
    "array": array,
    "dtype": dtype,
    "OrderedDict": _ordered,
    "wrap_key_data": wrap_key_data,
    "re.compile": pattern,
}
_IN_DATA = {"dict": dictionary, "list": sequence, "float": number, "scalar_type": scalar_type, "invert": _invert}
"""What text has signs for, and JSON has none."""
FUNCTION = "function"
"""The name that stands in data for a function that is an argument, not called."""

_CONSTANTS = {"inf": float("inf"), "nan": float("nan"), "np.True_": np.True_, "np.False_": np.False_}
_OF_OTHERS = ("functools.partial", "jax.sharding.PartitionSpec", "jax.sharding.Mesh", "jax.random.wrap_key_data")


class Known:
    """All names that a configuration may have: what gradtx and users define, and what the caller gives in `names`."""

    def __init__(self, where: str, names: Names):
        if not (names is None or isinstance(names, Mapping) and all(isinstance(n, str) for n in names)):
            raise TypeError(f"{where}: names must be a dictionary of names and what they mean, got {names!r}")
        self.where, self.given = where, dict(names or {})
        self.functions = {**_functions(), **self.given}  # first, as the namespaces load that have factories
        makers = dict(_others())
        for name, factory in [*_factories(), *((n, x.factory) for n, x in self.given.items() if _makes_values(x))]:
            makers[name] = Maker(name, factory.public, factory.signature.parameters, factory)
        self.makers = makers

    def name_of(self, factory: Factory) -> str:
        return next(name for name, maker in reversed(self.makers.items()) if maker.factory is factory)

    def function_name(self, x: Any) -> str | None:
        """The name of a function that may be an argument; None for any other."""
        return next((name for name, y in reversed(self.functions.items()) if y is x), None)

    def maker(self, name: str) -> Maker:
        """What a name means that is called.

        Raises:
          ValueError: for a name that is unknown, or of something that cannot be called.
        """
        bare = _without_namespace(name)
        if bare in self.makers:
            return self.makers[bare]
        if (found := _scalar_type(name)) is not None:
            return Maker(name, functools.partial(_scalar, name, np.dtype(found)), inspect.signature(number).parameters)
        if bare in self.functions:
            raise ValueError(f"{name} is a function, which may be an argument, but a configuration does not call it")
        raise ValueError(f"{name} is no name that a configuration may call{self._meant(bare, self.makers)}")

    def function(self, name: str) -> Any:
        """What a name means that is not called: a function, a dtype or a number.

        Raises:
          ValueError: for an unknown name.
        """
        bare = _without_namespace(name)
        if bare in self.functions:
            return self.functions[bare]
        if bare in self.makers and self.makers[bare].factory is not None:
            return self.makers[bare].function
        if bare in _CONSTANTS:
            return _CONSTANTS[bare]
        if (found := _scalar_type(name)) is not None:
            return found
        raise ValueError(
            f"{name} is no name that a configuration may use{self._meant(bare, self.makers | self.functions)}"
        )

    def _meant(self, name: str, known: Iterable[str]) -> str:
        close = difflib.get_close_matches(name, [n for n in known if n not in _IN_DATA], n=3, cutoff=0.6)
        if close:
            return f"; the closest {'are' if len(close) > 1 else 'is'} {listed(close)}"
        return (
            "; there are the transformations and schedules of gradtx, what they are made of, and what names says: "
            "names={...}"
        )


@functools.cache
def _others() -> dict[str, Maker]:
    return {n: Maker(n, f, inspect.signature(f).parameters) for n, f in {**_CALLED, **_IN_DATA}.items()}


def _factories() -> Iterable[tuple[str, Factory]]:
    """The factories by the names that they have in a configuration: those of users, then those of gradtx."""
    users = [(path, f) for path, f in FACTORIES.items() if not f.module.startswith("gradtx.")]
    for path, factory in users:
        yield path, factory
    for _, factory in users:
        if sum(f.name == factory.name for _, f in users) == 1:
            yield factory.name, factory
    for path, factory in FACTORIES.items():
        if factory.module.startswith("gradtx."):  # methods of schedules with the class
            yield path.removeprefix(f"{factory.module}.").lstrip("_"), factory


def _scalar_type(name: str) -> Any:
    try:
        return scalar_type(name)
    except ValueError:
        return None


def _scalar(name: str, dtype: Any, value: Any) -> Any:
    """A number of a dtype: np.float32(0.1)."""
    return Array(value, dtype) if name.startswith("j") else array(value, dtype)[()]


@functools.cache
def _functions() -> dict[str, Any]:
    """The public functions of gradtx by their shortest names, and those that are defaults of its factories."""
    found: dict[str, Any] = {}
    spaces = _front.namespaces()
    for _, factory in sorted(FACTORIES.items()):
        if factory.module.startswith("gradtx."):
            found |= {f.__name__: f for f in factory.defaults.values() if inspect.isfunction(f)}
    for place, module in {"": sys.modules["gradtx"], **spaces}.items():
        for name, x in _front.public(module).items():
            if inspect.isfunction(inspect.unwrap(x) if callable(x) else x):
                found.setdefault(name if name not in found else f"{place}.{name}", x)
    return dict(reversed(found.items()))


def _makes_values(x: Any) -> bool:
    return inspect.isfunction(x) and isinstance(getattr(x, "factory", None), Factory)


def _without_namespace(name: str) -> str:
    """The name without the namespace that it is said to be in, if it is in that."""
    if name in _OF_OTHERS:
        return name.rpartition(".")[2]
    bare = name.removeprefix("gradtx.")
    place, _, last = bare.rpartition(".")
    module = _front.namespaces().get(place)
    if module is not None and last in _front.public(module) and f"{place}.{last}" not in _functions():
        return last
    return bare
