# SPDX-License-Identifier: Apache-2.0
"""Values that are their constructor call: they print, compare, hash, pickle and flatten by factory and arguments.

The numeric hyperparameters and the nested values are the children of such a value, everything else is static. A value
that JAX rebuilds from other children (traced numbers, `None`s, placeholders) does nothing until it is used.
"""

import functools
import inspect
import typing
from collections import OrderedDict
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core._ranges import Floating, Range, check_argument, is_array, is_number, specification


class Factory:
    """A function whose calls are values: its body, signature and what the annotations say of each argument."""

    def __init__(self, body: Callable, public: Callable, expand: Callable[["Call"], Any], schedules: bool = True):
        hints = typing.get_type_hints(body, include_extras=True)
        self.body, self.public, self.expand, self.schedules = body, public, expand, schedules
        self.name, self.module = body.__name__, body.__module__
        self.signature = inspect.signature(body)
        self.hints = hints
        self.specs = {n: s for n in self.signature.parameters if (s := specification(hints.get(n)))}
        self.hyperparameters = tuple(n for n, s in self.specs.items() if isinstance(s, Range) and not s.integer)

    def bind(self, args: tuple, kwargs: dict) -> "Call":
        """The call with these arguments, checked."""
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}; the call is {self}") from None
        bound.apply_defaults()
        arguments = {n: self._checked(n, v) for n, v in bound.arguments.items()}
        return Call.make(self, arguments)

    def _checked(self, name: str, value: Any) -> Any:
        spec, hint = self.specs.get(name), self.hints.get(name)
        if name in self.hyperparameters and not self.schedules and not (is_number(value) or is_array(value)):
            if value is not None:
                raise TypeError(f"{self.name}: {name} must be a number or an array, got {value!r}")
        if spec is not None:
            optional = type(None) in typing.get_args(hint) or self.signature.parameters[name].default is None
            return check_argument(self.name, name, value, spec, optional)
        if hint is bool and not isinstance(value, bool | np.bool_):
            raise TypeError(f"{self.name}: {name} must be True or False, got {value!r}")
        if typing.get_origin(hint) is typing.Literal and value not in typing.get_args(hint):
            raise ValueError(f"{self.name}: {name} must be one of {typing.get_args(hint)}, got {value!r}")
        return value

    def run(self, arguments: dict[str, Any]) -> Any:
        """The body's result for the arguments."""
        bound = inspect.BoundArguments(self.signature, arguments)  # type: ignore[arg-type]  # any ordered mapping does
        return self.body(*bound.args, **bound.kwargs)

    def __repr__(self) -> str:
        bare = [p.replace(annotation=p.empty) for p in self.signature.parameters.values()]
        return f"{self.name}{self.signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)}"


class _Child:
    """Stands in a layout for the place of a child."""

    def __repr__(self) -> str:
        return "*"


CHILD = _Child()


class Layout:
    """The static part of a call: which factory, and for each argument a tree of constants and child places."""

    __slots__ = ("factory", "entries", "_key")

    def __init__(self, factory: Factory, entries: tuple):
        self.factory, self.entries = factory, entries
        self._key = (factory, tuple((d, tuple(freeze(x) for x in xs)) for d, xs in entries))

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Layout) and self._key == other._key)

    def __hash__(self) -> int:
        return hash(self._key)

    def fill(self, children: tuple) -> dict[str, Any]:
        """The arguments, with these children in their places."""
        rest = iter(children)
        names = self.factory.signature.parameters
        return {
            n: jax.tree.unflatten(d, [next(rest) if x is CHILD else x for x in xs])
            for n, (d, xs) in zip(names, self.entries, strict=True)
        }


class Call:
    """A factory and its arguments, split into a static layout and the children."""

    __slots__ = ("layout", "children", "_key")

    def __init__(self, layout: Layout, children: tuple):
        self.layout, self.children, self._key = layout, children, None

    @classmethod
    def make(cls, factory: Factory, arguments: dict[str, Any]) -> "Call":
        children, entries = [], []
        for name, value in arguments.items():
            leaves, treedef = jax.tree.flatten(_flattenable(value), is_leaf=_not_a_plain_container)
            numeric = name in factory.hyperparameters
            found = [isinstance(x, Value) or (numeric and (is_number(x) or is_array(x))) for x in leaves]
            children += [x for x, child in zip(leaves, found, strict=True) if child]
            entries.append((treedef, tuple(CHILD if c else x for x, c in zip(leaves, found, strict=True))))
        return cls(Layout(factory, tuple(entries)), tuple(children))

    @property
    def factory(self) -> Factory:
        return self.layout.factory

    @property
    def arguments(self) -> dict[str, Any]:
        return self.layout.fill(self.children)

    @property
    def key(self) -> tuple:
        if self._key is None:
            self._key = (self.layout, tuple(freeze(x) for x in self.children))
        return self._key

    def __repr__(self) -> str:
        shown = []
        for name, value in self.arguments.items():
            parameter = self.factory.signature.parameters[name]
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                shown += [_show(x) for x in value]
            elif parameter.default is inspect.Parameter.empty:
                keyword = parameter.kind is inspect.Parameter.KEYWORD_ONLY
                shown.append(f"{name}={_show(value)}" if keyword else _show(value))
            elif freeze(value) != freeze(self._default(name)):
                shown.append(f"{name}={_show(value)}")
        if next(iter(self.factory.signature.parameters), None) == "self":  # a method of values
            return f"{shown[0]}.{self.factory.name}({', '.join(shown[1:])})"
        return f"{self.factory.name}({', '.join(shown)})"

    def _default(self, name: str) -> Any:
        default = self.factory.signature.parameters[name].default
        is_dtype = isinstance(self.factory.specs.get(name), Floating) and default is not None
        return jnp.dtype(default) if is_dtype else default


class Value:
    """Base of transformations and schedules: immutable, and equal, hashable, printable and picklable by its call."""

    __slots__ = ("_call", "_hash", "__weakref__")  # jax.jit holds what it compiles weakly
    _call: Call | None

    @classmethod
    def from_call(cls, call: Call) -> Self:
        self = cls.__new__(cls)
        object.__setattr__(self, "_call", call)
        return self

    @property
    def factory(self) -> Factory | None:
        """The factory whose call this value is; None for one made by hand."""
        return None if self._call is None else self._call.factory

    @property
    def arguments(self) -> MappingProxyType[str, Any]:
        """The arguments of that call by name, defaults included."""
        return MappingProxyType({} if self._call is None else self._call.arguments)

    def replace(self, **changes: Any) -> Self:
        """The same call with other arguments: `adam(1e-3).replace(learning_rate=1e-4)`."""
        if self._call is None:
            raise TypeError(f"replace: {self!r} was made by hand and has no arguments to replace")
        unknown = sorted(set(changes) - set(self.arguments))
        if unknown:
            raise TypeError(f"{self._call.factory.name}: no argument {unknown[0]}; there are {list(self.arguments)}")
        factory = self._call.factory
        bound = inspect.BoundArguments(factory.signature, {**self.arguments, **changes})  # type: ignore[arg-type]
        return factory.public(*bound.args, **bound.kwargs)

    def _identity(self) -> Any:
        """What stands for a value made by hand in comparisons."""
        return id(self)

    def __repr__(self) -> str:
        return repr(self._call) if self._call is not None else object.__repr__(self)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(self) is not type(other) or not isinstance(other, Value):
            return NotImplemented
        if self._call is None or other._call is None:
            return self._call is other._call and self._identity() == other._identity()
        return self._call.key == other._call.key

    def __hash__(self) -> int:
        try:
            return self._hash
        except AttributeError:
            value = hash(self._identity() if self._call is None else self._call.key)
            object.__setattr__(self, "_hash", value)
            return value

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: use .replace({name}=...) to make another")

    __delattr__ = __setattr__  # type: ignore[assignment]  # the same refusal

    def __reduce__(self) -> tuple:
        assert self._call is not None  # the subclasses pickle what was made by hand
        return _unpickle, (self._call.factory.public, self._call.arguments)


V = TypeVar("V", bound=Value)


def register_value(cls: type[V]) -> type[V]:
    """Makes a kind of value a pytree: children of its call as leaves, the layout static."""

    def flatten(value: Value) -> tuple:
        if value._call is None:
            return (), value
        return value._call.children, value._call.layout

    def flatten_with_keys(value: Value) -> tuple:
        children, static = flatten(value)
        names = [] if value._call is None else _child_names(value._call)
        keys = [jax.tree_util.GetAttrKey(n) for n in names]
        return tuple(zip(keys, children, strict=True)), static

    def unflatten(static: Any, children: Any) -> Value:
        return cls.from_call(Call(static, tuple(children))) if isinstance(static, Layout) else static

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def factory_decorator(body: Callable, cls: type[Value], expand: Callable, schedules: bool = True) -> Callable:
    """Turns a function into a factory of `cls` values; `construct.factory` is the record.

    `expand` makes of a call what the value runs; `schedules` says whether numeric arguments may be schedules.
    """

    @functools.wraps(body)
    def construct(*args, **kwargs):
        value = cls.from_call(factory.bind(args, kwargs))
        value._expanded()  # so that errors of the body appear here  # type: ignore[attr-defined]
        return value

    factory = Factory(body, construct, expand, schedules)
    construct.factory = factory  # type: ignore[attr-defined]  # a function attribute
    return construct


def freeze(value: Any) -> Any:
    """A hashable stand-in for an argument, equal exactly when the arguments are interchangeable."""
    if isinstance(value, Value):
        return value
    if isinstance(value, Tracer):
        return ("tracer", id(value))
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return ("key", str(jax.random.key_impl(value)), freeze(jax.random.key_data(value)))
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        weak = getattr(value, "weak_type", False)
        x = np.asarray(value)
        return ("array", type(value).__module__.partition(".")[0], str(x.dtype), weak, x.shape, x.tobytes())
    if not _not_a_plain_container(value):
        leaves, treedef = jax.tree.flatten(_flattenable(value), is_leaf=_not_a_plain_container)
        return (treedef, tuple(freeze(x) for x in leaves))
    try:
        hash(value)
    except TypeError:
        return ("object", id(value))
    return (type(value), value)


def _not_a_plain_container(x: Any) -> bool:
    return type(x) not in (dict, OrderedDict, list, tuple)


def _flattenable(x: Any) -> Any:
    """An ordered dictionary for one whose keys JAX could not sort."""
    if type(x) is not dict:
        return x
    try:
        sorted(x)
    except TypeError:
        return OrderedDict(x)
    return x


def _child_names(call: Call) -> list[str]:
    names = []
    for name, (_, leaves) in zip(call.factory.signature.parameters, call.layout.entries, strict=True):
        count = sum(x is CHILD for x in leaves)
        names += [name] if count == 1 else [f"{name}[{i}]" for i in range(count)]
    return names


def _unpickle(public: Callable, arguments: dict[str, Any]) -> Value:
    bound = inspect.BoundArguments(public.factory.signature, arguments)  # type: ignore[attr-defined]
    return public(*bound.args, **bound.kwargs)


def _show(value: Any) -> str:
    if isinstance(value, np.dtype):
        return repr(value.name)
    if type(value) in (dict, OrderedDict):
        return "{" + ", ".join(f"{k!r}: {_show(v)}" for k, v in value.items()) + "}"
    if type(value) in (list, tuple):
        left, right = ("[", "]") if type(value) is list else ("(", ",)" if len(value) == 1 else ")")
        return left + ", ".join(map(_show, value)) + right
    if not isinstance(value, Value) and callable(value):
        return getattr(value, "__qualname__", None) or repr(value)
    return repr(value)
