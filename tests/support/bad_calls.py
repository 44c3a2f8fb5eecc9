# SPDX-License-Identifier: Apache-2.0
"""Bad calls of every public callable: one argument of a good call is replaced by what has no business there."""

import inspect
import re
import traceback
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from gradtx.core._calls import Value
from gradtx.core._transformation import is_transformation
from gradtx.schedules._schedule import Schedule
from support.good_calls import EXAMPLES, LIKE, PARAMS, Good
from support.registry import PER_EXAMPLE, extra_arguments

ANYWHERE: dict[str, Any] = {
    "NaN": float("nan"),
    "inf": float("inf"),
    "-inf": -float("inf"),
    "negative": -1.0,
    "zero": 0,
    "2.5": 2.5,
    "string": "word",
    "None": None,
    "bool": True,
    "list": [1.0, 2.0],
    "complex": 1j,
    "array of three": np.array([0.1, 0.2, 0.3], np.float32),
    "not called": gradtx.adam,
    "wrong tree": {"other": np.float32(1.0)},
}
"""What is tried for every argument."""


def variations(good: Any) -> Iterator[tuple[str, Any]]:
    """Changes of an array, or of the first array in a tree, and of the keys of a tree."""
    if isinstance(good, np.ndarray) and good.ndim:
        yield from _of_array(good)
    elif isinstance(good, dict) and good and all(isinstance(x, np.ndarray) for x in good.values()):
        key, *rest = good
        for label, x in _of_array(good[key]):
            yield label, {**good, key: x}
        yield "missing key", {n: good[n] for n in rest}
        yield "extra key", {**good, "extra": good[key]}


def _of_array(x: np.ndarray) -> Iterator[tuple[str, Any]]:
    if x.ndim > 1:
        yield "transposed", x.T if x.shape[0] != x.shape[1] else x[:, :-1]
    yield "broadcastable", x[:1] if x.shape[0] > 1 else x[None]
    yield "integer leaf", np.round(x).astype(np.int32) if x.dtype.kind == "f" else x.astype(np.float32)
    yield "string leaf", "word"
    yield "complex leaf", x.astype(np.complex64)


class Bad(NamedTuple):
    """A call with one bad argument."""

    path: str
    good: Good
    argument: str
    label: str
    value: Any

    def __str__(self) -> str:
        return f"{self.path}({self.argument}={self.label})"


class Answer(NamedTuple):
    """How a call is answered: "refused", by name; "opaque", by another error; "accepted", by none."""

    kind: str
    said: str = ""


def bad_calls(path: str, good: Good) -> Iterator[Bad]:
    """All bad calls of a callable."""
    for name, parameter in inspect.signature(good.function).parameters.items():
        several = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if several and not good.arguments.get(name) or name == "self":
            continue
        own = good.arguments.get(name, parameter.default)
        for label, value in [*ANYWHERE.items(), *variations(own)]:
            if type(value) is type(own) and not isinstance(value, dict | np.ndarray) and value == own:
                continue
            if several:
                value = {n: value for n in own} if isinstance(own, dict) else (value, *own[1:])
            yield Bad(path, good, name, label, value)


def answer(call: Bad) -> Answer:
    """What becomes of the call, and of what it returns when it is used."""
    return answer_of(call, "gradtx")


def answer_of(call: Bad, *packages: str, names_the_callable: bool = True) -> Answer:
    """The answer, which is clear if one of these packages gives it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _run(call.good, {**call.good.arguments, call.argument: call.value})
    except Exception as error:  # whatever it is, it is the answer
        said = f"{type(error).__name__}: {error}"
        is_ours = raised_by(error) in packages
        return Answer("refused" if is_ours and is_clear(error, call, names_the_callable) else "opaque", said)
    return Answer("accepted")


def plain(good: Good) -> None:
    """Runs the good call itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _run(good, good.arguments)


def _run(good: Good, arguments: dict[str, Any]) -> None:
    bound = inspect.BoundArguments(inspect.signature(good.function), {})  # type: ignore[arg-type]  # filled below
    for name, parameter in bound.signature.parameters.items():
        if name in arguments:
            bound.arguments[name] = arguments[name]
        elif parameter.default is not parameter.empty:
            bound.arguments[name] = parameter.default
    call = lambda: good.function(*bound.args, **bound.kwargs)  # noqa: E731  # one line for two ways
    if hasattr(good.function, "factory"):
        _use(call())
    elif good.on_values:
        call()
    else:
        jax.eval_shape(lambda: (call(), None)[1])


def _use(value: Any) -> None:
    """Traces what a factory has made, once."""
    if is_transformation(value):
        name = value.factory.name if isinstance(value, Value) and value.factory else ""
        extra = extra_arguments(name)

        def step() -> Any:
            state = value.init(PARAMS)
            return value.update(EXAMPLES if name in PER_EXAMPLE else LIKE, state, PARAMS, **extra)

        jax.eval_shape(lambda: (step(), None)[1])
    elif isinstance(value, Schedule):
        jax.eval_shape(value, jnp.int32(3))


def is_clear(error: Exception, call: Bad, names_the_callable: bool) -> bool:
    """Whether it is a sentence that names the callable and the argument."""
    kinds = (ValueError, TypeError, KeyError, AssertionError)  # the last two as `get` and `check_contract` say
    if not isinstance(error, kinds):
        return False
    said, name = str(error), call.path.rpartition(".")[2]
    related = inspect.signature(call.good.function).parameters if is_structured(call) else ()
    named = not names_the_callable or re.search(rf"\b{re.escape(name)}\b", said)
    return bool(named) and any(_says(said, n) for n in (call.argument, *related))


def is_structured(call: Bad) -> bool:
    """Whether the argument is an array or a tree: that it does not fit to another can be said of either."""
    own = call.good.arguments.get(call.argument)
    return isinstance(own, np.ndarray | dict | tuple) or is_transformation(own)


IN_PROSE = {
    "params": "parameter",
    "updates": "update|gradient|leaf",
    "per_elt_updates": "gradient",
    "grads": "gradient",
    "gradients": "update|gradient",
    "old_state": "state",
    "new_tx": "state",
    "param_labels": "label",
    "rules": "roles",
    "path": "parameter at",
    "where": "chooses",
    "scale": "bound",
    "measures": "function of the updates",
    "betas": "b1|b2",
    "text": "at column",
    "tree": "there is no|there are",
}
"""What the sentence calls an argument, where it is not its name."""


def _says(said: str, argument: str) -> bool:
    words = {argument, argument.removesuffix("s").replace("_", " "), *IN_PROSE.get(argument, argument).split("|")}
    return bool(re.search("|".join(rf"\b{re.escape(word)}s?\b" for word in words), said))


def raised_by(error: Exception) -> str:
    """The package whose code has raised it."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return frames[-1].f_globals.get("__name__", "").partition(".")[0]
