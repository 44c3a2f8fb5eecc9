# SPDX-License-Identifier: Apache-2.0
"""What races: a transformation of gradtx, or a peer by its import path, as a function of its learning rate.

Calls are parsed and never evaluated. Only modules that the user names are imported.
"""

import ast
import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

from gradtx.configuration._from_string import from_string
from gradtx.core._calls import Value
from gradtx.core._nesting import inside, is_transformation, with_others_inside
from gradtx.race._imported import imported
from gradtx.schedules._schedule import Schedule

RATES = ("learning_rate", "adam_learning_rate", "max_learning_rate")
"""The arguments of transformations that are learning rates."""
_PATH = re.compile(r"\s*([\w.]+:[\w.]+)\s*(.*)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Contender:
    """A transformation for each multiple of its learning rate.

    Attributes:
      name: the call, as the user wrote it.
      make: from a factor, which may be traced, to the transformation with that multiple of its rate.
      rate: the rate of factor 1; None if that is no single number.
      has_rate: False for a transformation without a learning rate, which runs as it is.
      takes_roles: whether it is gradtx's.
    """

    name: str
    make: Callable[[Any], Any]
    rate: float | None
    has_rate: bool
    takes_roles: bool

    def rate_text(self, factor: float) -> str:
        """The rate at a factor; the factor if the rate is no number."""
        if not self.has_rate:
            return "-"
        return f"{factor:.3g}x" if self.rate is None else f"{self.rate * factor:.3g}"


def contender(given: Any) -> Contender:
    """The contender that a text or a transformation says.

    Args:
      given: a call of gradtx's, `adamw(1e-3)`, as `from_string` reads it; an import path, `optax:adamw(1e-3)`; or a
        transformation.

    Raises:
      TypeError, ValueError: for anything else, with the place.
    """
    if not isinstance(given, str):
        return _of_value(repr(given), given)
    path = _PATH.fullmatch(given)
    return _of_value(given, from_string(given)) if path is None else _of_path(given.strip(), path[1], path[2].strip())


def _of_value(name: str, tx: Any) -> Contender:
    if not is_transformation(tx):
        raise TypeError(f"{name}: a contender has functions init and update, got {tx!r}")
    rates = list(_rates(tx))
    number = float(rates[0]) if rates and _is_number(rates[0]) else None
    return Contender(name, lambda factor: _scaled(tx, factor), number, bool(rates), isinstance(tx, Value))


def _rates(tx: Any) -> Iterator[Any]:
    """The learning rates of a transformation and of those inside."""
    if isinstance(tx, Value):
        yield from (tx.arguments[n] for n in RATES if tx.arguments.get(n) is not None)
        for x in tx.arguments.values():
            for _, child in inside(x):
                yield from _rates(child)


def _scaled(tx: Any, factor: Any) -> Any:
    """The same transformation with all learning rates multiplied."""
    if not isinstance(tx, Value):
        return tx
    changes = {}
    for name, x in tx.arguments.items():
        if name in RATES and x is not None:
            changes[name] = _times(x, factor)
        elif any(True for _ in inside(x)):
            changes[name] = with_others_inside(x, lambda _, child: _scaled(child, factor))
    return tx.replace(**changes) if changes else tx


def _times(rate: Any, factor: Any) -> Any:
    if callable(rate) and not isinstance(rate, Schedule):
        return lambda count: rate(count) * factor
    return rate * factor


def _of_path(text: str, path: str, call: str) -> Contender:
    found = imported(path)
    if not call and is_transformation(found):
        return _of_value(text, found)
    if not callable(found):
        raise TypeError(f"{text}: {path} must be a transformation or a function that makes one, got {found!r}")
    args, kwargs = _literals(text, call or "()")
    try:
        tx = found(*args, **kwargs)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{text}: {error}") from error
    place = None if isinstance(tx, Value) else _place_of_rate(found, args, kwargs)
    if place is None:
        return _of_value(text, tx)
    if not is_transformation(tx):
        raise TypeError(f"{text}: a contender has functions init and update, got {tx!r}")
    bound, name = place
    rate = bound.arguments[name]

    def make(factor: Any) -> Any:
        bound.arguments[name] = rate * factor
        try:
            return found(*bound.args, **bound.kwargs)
        finally:
            bound.arguments[name] = rate

    return Contender(text, make, float(rate), True, False)


def _literals(text: str, call: str) -> tuple[list, dict[str, Any]]:
    """The arguments of a call, which must be numbers, text, lists, tuples and dictionaries."""
    try:
        node = ast.parse(f"_{call}", mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"{text}: {error.msg}") from None
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ValueError(f"{text}: a contender is one call, such as optax:adamw(1e-3)")
    args, kwargs = [], {}
    for name, x in [(None, x) for x in node.args] + [(k.arg, k.value) for k in node.keywords]:
        try:
            value = ast.literal_eval(x)
        except ValueError:
            told = "the arguments of a peer are numbers, text, lists, tuples and dictionaries"
            raise ValueError(f"{text}: {told}, got {ast.unparse(x)}; write a function, and name it") from None
        if name is None:
            args.append(value)
        else:
            kwargs[name] = value
    return args, kwargs


def _place_of_rate(function: Any, args: list, kwargs: dict) -> tuple[inspect.BoundArguments, str] | None:
    """The arguments of a call and which of them is its rate: `learning_rate`, or else a first one that is a float."""
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except (TypeError, ValueError):  # no signature
        return None
    bound.apply_defaults()
    first = next(iter(bound.arguments), None)
    if _is_number(bound.arguments.get("learning_rate")):
        return bound, "learning_rate"
    return (bound, first) if first is not None and isinstance(bound.arguments[first], float) else None


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool)
