# SPDX-License-Identifier: Apache-2.0
"""What a signature demands of a call: arguments are bound to names, checked against the annotations, handed on.

All that depends on the signature alone is found once, at the first call; a call only looks at what it is given.
"""

import difflib
import functools
import inspect
import types
import typing
from collections.abc import Callable
from functools import cached_property
from inspect import Parameter
from typing import Any, Self

import numpy as np

from gradtx.core._kinds import TEXT, of_hint
from gradtx.core._ranges import Floating, Range, check_argument, is_array, is_number, readable, specification

REQUIRED = Parameter.empty

OTHER_NAMES = {
    "lr": ("learning_rate",),
    "betas": ("b1", "b2"),
    "beta": ("b1", "momentum", "decay"),
    "beta1": ("b1",),
    "beta_1": ("b1",),
    "beta2": ("b2",),
    "beta_2": ("b2",),
    "epsilon": ("eps",),
    "alpha": ("decay",),
    "rho": ("decay",),
    "wd": ("weight_decay",),
}
"""How other libraries call arguments, and what they may be here, for errors."""


TAKES_FACTORIES = {"inner_factory"}
"""The arguments that are functions of any arguments, and may be a factory that is not called. Not those of decorators,
which would put another factory in the place of this one."""


class Arguments:
    """The parameters of a function, which is called `name` in errors, and what its annotations say of them.

    They are read when they are asked for first: of all functions of a library, a program calls few.
    """

    is_plain = False
    """Whether it is a function and no factory, whose body may say more of texts, sizes and functions left out."""

    def __init__(self, name: str, function: Callable[..., Any], schedules: bool):
        self.name, self.function, self.schedules = name, function, schedules

    @cached_property
    def signature(self) -> inspect.Signature:
        return inspect.signature(self.function)

    @cached_property
    def hints(self) -> dict[str, Any]:
        return typing.get_type_hints(self.function, include_extras=True)

    @cached_property
    def specs(self) -> dict[str, Range | Floating]:
        return {n: s for n in self.signature.parameters if (s := specification(self.hints.get(n)))}

    @cached_property
    def hyperparameters(self) -> tuple[str, ...]:
        return tuple(n for n, s in self.specs.items() if isinstance(s, Range) and not (s.integer or s.static))

    def _named(self, *kinds: Any) -> tuple[str, ...]:
        return tuple(p.name for p in self.signature.parameters.values() if p.kind in kinds)

    @cached_property
    def by_place(self) -> tuple[str, ...]:
        return self._named(Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)

    @cached_property
    def by_keyword(self) -> tuple[str, ...]:
        return self._named(Parameter.KEYWORD_ONLY)

    @cached_property
    def rest(self) -> tuple[str, ...]:
        return self._named(Parameter.VAR_POSITIONAL)

    @cached_property
    def keywords(self) -> tuple[str, ...]:
        return self._named(Parameter.VAR_KEYWORD)

    @cached_property
    def required(self) -> tuple[str, ...]:
        names = self.by_place + self.by_keyword
        return tuple(n for n in names if self.signature.parameters[n].default is REQUIRED)

    @cached_property
    def _with_names(self) -> frozenset[str]:
        return frozenset(self._named(Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY))

    @cached_property
    def checks(self) -> dict[str, Callable[[Any], Any]]:
        return {n: check for n, p in self.signature.parameters.items() if (check := self._check_of(p))}

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """What stands for each argument that is not given, checked like one that is."""
        return {n: self._default(p) for n, p in self.signature.parameters.items()}

    def bind(self, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
        """All arguments of a call by name, in the order of the signature, checked."""
        arguments = self.defaults | dict(zip(self.by_place, args, strict=False)) | kwargs
        for name in self.rest:
            arguments[name] = args[len(self.by_place) :]
        if not self._fit(args, kwargs, arguments):
            arguments = self.defaults | self._bound(args, kwargs)
        for name, check in self.checks.items():
            value = arguments[name]
            if value is not self.defaults[name]:
                arguments[name] = check(value)
        return arguments

    def apart(self, arguments: dict[str, Any]) -> tuple[list, dict[str, Any]]:
        """The arguments as a call takes them: by place and by keyword."""
        args, kwargs = [arguments[name] for name in self.by_place], {n: arguments[n] for n in self.by_keyword}
        for name in self.rest:
            args += arguments[name]
        for name in self.keywords:
            kwargs |= arguments[name]
        return args, kwargs

    def printed(self) -> inspect.Signature:
        """The signature with ranges by their names."""
        return Printed.of(self)

    def _fit(self, args: tuple, kwargs: dict[str, Any], arguments: dict[str, Any]) -> bool:
        """Whether each argument has one name that takes it, and each name without a default has an argument."""
        return (
            (len(args) <= len(self.by_place) or bool(self.rest))
            and self._with_names.issuperset(kwargs)
            and kwargs.keys().isdisjoint(self.by_place[: len(args)])
            and not [name for name in self.required if arguments[name] is REQUIRED]
        )

    def _bound(self, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
        """`bind` by the standard library, which takes its time, knows all cases and says what is wrong."""
        try:
            return dict(self.signature.bind(*args, **kwargs).arguments)
        except TypeError as error:
            unknown = [n for n in kwargs if n not in self._with_names and not self.keywords]
            wrong = f"got an unexpected keyword argument {unknown[0]!r}" if unknown else error
            raise TypeError(f"{self.name}: {wrong}; the call is {self}{''.join(map(self._instead, unknown))}") from None

    def _instead(self, unknown: str) -> str:
        """What may be meant by an argument that is not there: the name that it has here, or another function."""
        if unknown == "weight_decay":
            other = (
                "adamw has it" if self.name == "adam" else f"chain(add_decayed_weights(...), {self.name}(...)) has it"
            )
            return f"; for weight_decay, {other}"
        meant = [n for n in OTHER_NAMES.get(unknown, ()) if n in self._with_names]
        meant = meant or difflib.get_close_matches(unknown, self._with_names, n=1)
        return f"; for {unknown}, give {' and '.join(meant)}" if meant else ""

    def _default(self, parameter: Parameter) -> Any:
        if parameter.kind is Parameter.VAR_POSITIONAL:
            return ()
        if parameter.kind is Parameter.VAR_KEYWORD:
            return {}
        check = self.checks.get(parameter.name)
        return parameter.default if check is None or parameter.default is REQUIRED else check(parameter.default)

    def _check_of(self, parameter: Parameter) -> Callable[[Any], Any] | None:
        """The function that checks an argument and returns the value to keep; None for one that may be anything."""
        check = None if parameter.kind is parameter.VAR_KEYWORD else self._check_of_one(parameter)
        if check is None or parameter.kind is not parameter.VAR_POSITIONAL:
            return check
        return lambda values: tuple(map(check, values))

    def _check_of_one(self, parameter: Parameter) -> Callable[[Any], Any] | None:
        name, spec, hint = parameter.name, self.specs.get(parameter.name), self.hints.get(parameter.name)
        if spec is not None:
            optional = type(None) in typing.get_args(hint) or parameter.default is None
            check = functools.partial(check_argument, self.name, name, spec=spec, optional=optional)
            return check if self.schedules or name not in self.hyperparameters else self._constant(name, check)
        if (kind := of_hint(hint) or (TEXT if self.is_plain and hint in (str, str | None) else None)) is not None:
            optional = type(None) in typing.get_args(hint) or parameter.default is None
            return functools.partial(kind.check, self.name, name, optional)
        if hint is int and self.is_plain:
            return functools.partial(check_argument, self.name, name, spec=Range(integer=True), optional=False)
        if hint is bool:
            return functools.partial(_check_flag, self.name, name)
        if typing.get_origin(hint) is typing.Literal:
            return functools.partial(_check_choice, self.name, name, choices=typing.get_args(hint))
        if _may_be_function(hint):
            return functools.partial(_check_called, self.name, name)
        if (kind := _kind_of_function(hint)) is not None:
            left_out = parameter.default is not REQUIRED and not self.is_plain
            optional = left_out or parameter.default is None or type(None) in typing.get_args(hint)
            return functools.partial(_check_function, self.name, name, kind, optional)
        return None

    def _constant(self, name: str, check: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """The check of a number that cannot be a schedule."""

        def check_constant(value: Any) -> Any:
            if not (value is None or is_number(value) or is_array(value)):
                raise TypeError(f"{self.name}: {name} must be a number or an array, got {value!r}")
            return check(value)

        return check_constant

    def __repr__(self) -> str:
        bare = [p.replace(annotation=p.empty) for p in self.signature.parameters.values()]
        return f"{self.name}{self.signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)}"


class Printed(inspect.Signature):
    """What `inspect` and `help` show of a function: its signature with ranges by their names, made when they ask."""

    _arguments: Arguments | None = None

    @classmethod
    def of(cls, arguments: Arguments) -> Self:
        self = cls.__new__(cls)
        self._arguments = arguments
        return self

    def __getattr__(self, name: str) -> Any:
        """Only asked for what is not there: what `Signature` keeps, before the first use."""
        if self._arguments is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        whole = self._arguments.signature
        parameters = [p.replace(annotation=readable(p.annotation)) for p in whole.parameters.values()]
        super().__init__(parameters, return_annotation=whole.return_annotation)
        return object.__getattribute__(self, name)


def _kind_of_function(hint: Any) -> str | None:
    """What an argument must be whose annotation is a function, such as `Annotated[Callable, "of the step"]`, in words;
    None for another annotation."""
    said = ""
    if typing.get_origin(hint) is typing.Annotated:
        hint, *notes = typing.get_args(hint)
        said = "".join(f" {note}" for note in notes if isinstance(note, str))
    union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    kinds = typing.get_args(hint) if union else (hint,)
    if not all(Callable in (kind, typing.get_origin(kind)) for kind in kinds if kind is not type(None)):
        return None
    return f"a function{said}" + (" or None" if type(None) in kinds else "")


def _may_be_function(hint: Any) -> bool:
    """Whether an argument may be a function or something else, such as `Any | Callable[[Params], Any]`."""
    members = (
        typing.get_args(hint) if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union else ()
    )
    functions = [Callable in (kind, typing.get_origin(kind)) for kind in members if kind is not type(None)]
    return any(functions) and not all(functions)


def _check_called(where: str, name: str, value: Any, kind: str = "") -> Any:
    if inspect.isfunction(value) and hasattr(value, "factory") and name not in TAKES_FACTORIES:
        made = f"{value.__name__}(...)"
        raise TypeError(
            f"{where}: {name} must be {kind or 'what a factory makes'}, got the factory {made[:-5]}: call it, {made}"
        )
    return value


def _check_function(where: str, name: str, kind: str, optional: bool, value: Any) -> Any:
    _check_called(where, name, value, kind)
    if not callable(value) and not (optional and value is None):
        raise TypeError(f"{where}: {name} must be {kind}, got {value!r}")
    return value


def _check_flag(where: str, name: str, value: Any) -> Any:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{where}: {name} must be True or False, got {value!r}")
    return value


def _check_choice(where: str, name: str, value: Any, choices: tuple) -> Any:
    try:
        found = value in choices and not (isinstance(value, bool) and not any(x is value for x in choices))
    except (TypeError, ValueError):  # arrays, for which `in` has no answer
        found = False
    if not found:
        raise ValueError(f"{where}: {name} must be one of {choices}, got {value!r}")
    return value
