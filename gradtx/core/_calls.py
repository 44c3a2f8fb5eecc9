# SPDX-License-Identifier: Apache-2.0
"""Values that are their constructor call: they print, compare, hash, pickle and flatten by factory and arguments.

The numeric hyperparameters and the nested values are the children of such a value, everything else is static. A value
that JAX rebuilds from other children (traced numbers, `None`s, placeholders) does nothing until it is used.
"""

import functools
import inspect
from collections import OrderedDict
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core._arguments import Arguments
from gradtx.core._naming import in_words_of, is_raised_by_gradtx
from gradtx.core._ranges import Floating, is_array, is_number
from gradtx.core._sentences import listed
from gradtx.core._texts import shown, sorts
from gradtx.core._tracing import is_tracing

CONTAINERS = frozenset((dict, OrderedDict, list, tuple))
"""What an argument may consist of: the constants and children inside are told apart one by one."""

_CHANGEABLE = CONTAINERS | {np.ndarray}
"""What a caller may change after the call."""

FACTORIES: dict[str, "Factory"] = {}
"""Every factory of values, of transformations, schedules, rules and multiples, by its qualified name."""


class Factory(Arguments):
    """A function whose calls are values: its body, and what its signature demands."""

    def __init__(
        self,
        body: Callable[..., Any],
        public: Callable[..., Any],
        expand: Callable[["Call"], Any],
        kind: type,
        schedules: bool = True,
    ):
        super().__init__(body.__name__, body, schedules)
        self.body, self.public, self.expand, self.module = body, public, expand, body.__module__
        self.kind = kind

    def run(self, arguments: dict[str, Any]) -> Any:
        """The body's result for the arguments."""
        args, kwargs = self.apart(arguments)
        try:
            return self.body(*args, **kwargs)
        except (TypeError, ValueError) as error:
            if type(error) in (TypeError, ValueError) and (own := in_words_of(self, arguments, error)) is not None:
                raise own from error
            moving = [n for n in self.hyperparameters if callable(x := arguments[n]) or isinstance(x, Tracer)]
            if not moving or isinstance(error, ValueError) or is_raised_by_gradtx(error):
                raise
            raise TypeError(
                f"{self.name}: {error}. The body of the factory has {listed(moving)} as a schedule or traced value; "
                f"use hyperparameters only in the functions that it returns, where they are the numbers of the step"
            ) from error


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
    """A factory and its arguments; for comparing and flattening, split into a static layout and the children.

    It is made of one of the two, and has the other when somebody asks: most transformations are only ever run.
    """

    __slots__ = ("factory", "_arguments", "_plain", "_parts", "_key")

    def __init__(self, factory: Factory, arguments: dict[str, Any] | None, parts: tuple[Layout, tuple] | None = None):
        self.factory, self._arguments, self._parts, self._key = factory, arguments, parts, None
        self._plain = arguments is not None and _CHANGEABLE.isdisjoint(map(type, arguments.values()))
        if arguments is not None and not self._plain:
            self._arguments = _copied(arguments)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments by name; plain containers among them are copies, arrays of NumPy read-only ones."""
        if self._arguments is None:
            self._arguments = self.layout.fill(self.children)
        return self._arguments if self._plain else _copied(self._arguments)

    @property
    def layout(self) -> Layout:
        return self._split()[0]

    @property
    def children(self) -> tuple:
        return self._split()[1]

    def _split(self) -> tuple[Layout, tuple]:
        if self._parts is None:
            assert self._arguments is not None
            children, entries = [], []
            for name, value in self._arguments.items():
                leaves, treedef = _flattened(value)
                numeric = name in self.factory.hyperparameters
                found = [isinstance(x, Value) or (numeric and (is_number(x) or is_array(x))) for x in leaves]
                children += [x for x, child in zip(leaves, found, strict=True) if child]
                entries.append((treedef, tuple(CHILD if c else x for x, c in zip(leaves, found, strict=True))))
            self._parts = Layout(self.factory, tuple(entries)), tuple(children)
        return self._parts

    def may_hold_values(self) -> bool:
        """Whether there may be values among the arguments, found without splitting them."""
        return not self._plain or any(isinstance(x, Value) for x in self.arguments.values())

    @property
    def key(self) -> tuple:
        if self._key is None:
            self._key = (self.layout, tuple(freeze(x) for x in self.children))
        return self._key

    def given(self) -> list[tuple[str, Any]]:
        """The arguments as they stand in the call, without those that are defaults: each with its `name=`, or ""."""
        found: list[tuple[str, Any]] = []
        for name, value in self.arguments.items():
            parameter = self.factory.signature.parameters[name]
            if isinstance(self.factory.specs.get(name), Floating):
                value = getattr(value, "name", value)  # a dtype is printed as its name
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                found += [("", x) for x in value]
            elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                found += [(f"{n}=", x) for n, x in value.items()]
            elif parameter.default is inspect.Parameter.empty:
                found.append((f"{name}=" if parameter.kind is inspect.Parameter.KEYWORD_ONLY else "", value))
            elif freeze(self.arguments[name]) != freeze(self.factory.defaults[name]):
                found.append((f"{name}=", value))
        return found

    def __repr__(self) -> str:
        texts = [label + shown(value) for label, value in self.given()]
        if next(iter(self.factory.signature.parameters), None) == "self":  # a method of values
            return f"{texts[0]}.{self.factory.name}({', '.join(texts[1:])})"
        return f"{self.factory.name}({', '.join(texts)})"


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
        args, kwargs = self._call.factory.apart({**self.arguments, **changes})
        return self._call.factory.public(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """Only asked for what is not there."""
        call = None if name.startswith("_") else self._call
        if call is not None and name in call.arguments:
            told = f"; its argument is arguments[{name!r}], and replace({name}=...) makes another"
            raise AttributeError(f"{self!r} has no attribute {name!r}{told}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _run_body(self) -> None:
        """Runs the body of the factory with the arguments."""
        self._expanded()  # type: ignore[attr-defined]  # the subclasses have it

    def _identity(self) -> Any:
        """What stands for a value made by hand in comparisons."""
        return id(self)

    def __repr__(self) -> str:
        return repr(self._call) if self._call is not None else object.__repr__(self)

    def __treescope_repr__(self, path: str | None, subtree_renderer: Callable[..., Any]) -> Any:
        """The call in a notebook, where its arguments unfold."""
        from treescope import rendering_parts as parts

        if self._call is None:
            return NotImplemented
        rows = [
            parts.siblings_with_annotations(label, subtree_renderer(value)) if label else subtree_renderer(value)
            for label, value in self._call.given()
        ]
        return parts.build_foldable_tree_node_from_children(
            f"{self._call.factory.name}(", rows, ")", comma_separated=True, path=path
        )

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


def expand_inside(call: Call) -> None:
    """While JAX traces, expands the values among the arguments now.

    They keep what they expand to, and it may hold tracers. Expanded later, inside of what a wrapper traces (a branch, a
    loop, the shapes of a state), these would be of a trace that has ended by the next use.
    """
    if call.may_hold_values() and is_tracing():
        for child in call.children:
            if isinstance(child, Value):
                child._expanded()  # type: ignore[attr-defined]  # the subclasses have it


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
        if not isinstance(static, Layout):
            return static
        return cls.from_call(Call(static.factory, None, (static, tuple(children))))

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def factory_decorator(
    body: Callable[..., Any], cls: type[Value], expand: Callable[..., Any], schedules: bool = True
) -> Callable[..., Any]:
    """Turns a function into a factory of `cls` values; `construct.factory` is the record.

    `expand` makes of a call what the value runs; `schedules` says whether numeric arguments may be schedules.
    """

    @functools.wraps(body)
    def construct(*args, **kwargs):
        value = cls.from_call(Call(factory, factory.bind(args, kwargs)))
        value._run_body()  # so that its errors appear here
        return value

    factory = Factory(body, construct, expand, cls, schedules)
    if not body.__module__.startswith("gradtx."):
        _ = factory.defaults  # what is wrong with the signature appears here
    FACTORIES[f"{body.__module__}.{body.__qualname__}"] = factory
    construct.factory = factory  # type: ignore[attr-defined]  # a function attribute
    construct.__signature__ = factory.printed()  # type: ignore[attr-defined]  # what inspect and help show
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
    if type(value) in CONTAINERS:
        leaves, treedef = _flattened(value)
        return (treedef, tuple(freeze(x) for x in leaves))
    if type(value) is functools.partial:
        return ("partial", freeze(value.func), freeze(value.args), freeze(value.keywords))
    try:
        hash(value)
    except TypeError:
        return ("object", id(value))
    return (type(value), value)


def _flattened(x: Any) -> tuple[list, Any]:
    """The leaves and structure of an argument: of plain containers, for anything else is a leaf."""
    if type(x) is dict and not sorts(x):
        x = OrderedDict(x)  # JAX would sort the keys
    elif getattr(type(x), "only_prints", False):
        x = tuple(x)
    return jax.tree.flatten(x, is_leaf=lambda x: type(x) not in CONTAINERS)


def _copied(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments, what may change among them copied, dictionaries in the order in which JAX flattens them."""
    return {name: kept(x) if type(x) in _CHANGEABLE else x for name, x in arguments.items()}


def kept(x: Any) -> Any:
    """The argument, copied if the caller may change it later."""
    if type(x) not in _CHANGEABLE or type(x) is tuple and _CHANGEABLE.isdisjoint(map(type, x)):
        return x
    leaves, treedef = _flattened(x)
    return jax.tree.unflatten(treedef, [_unchangeable(x) if type(x) is np.ndarray else x for x in leaves])


def _unchangeable(x: np.ndarray) -> np.ndarray:
    """The array, or a read-only copy of one that others can write to."""
    if x.flags.writeable or x.base is not None:
        x = x.copy()
        x.flags.writeable = False
    return x


def _child_names(call: Call) -> list[str]:
    names = []
    for name, (_, leaves) in zip(call.factory.signature.parameters, call.layout.entries, strict=True):
        count = sum(x is CHILD for x in leaves)
        names += [name] if count == 1 else [f"{name}[{i}]" for i in range(count)]
    return names


def _unpickle(public: Callable, arguments: dict[str, Any]) -> Value:
    args, kwargs = public.factory.apart(arguments)  # type: ignore[attr-defined]  # a function attribute
    return public(*args, **kwargs)
