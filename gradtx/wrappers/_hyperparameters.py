# SPDX-License-Identifier: Apache-2.0
"""Hyperparameters in the state, where they can be read, set and scheduled during a run."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._borders import bordered, of_shapes
from gradtx.core._calls import Factory, freeze, kept, register_value
from gradtx.core._checked import checked
from gradtx.core._counts import safe_increment
from gradtx.core._dtypes import compute_dtype
from gradtx.core._kinds import AnyDType, Texts
from gradtx.core._needs import needs
from gradtx.core._prefixes import is_function
from gradtx.core._ranges import at_step, is_array, is_number
from gradtx.core._selectors import described
from gradtx.core._transformation import (
    GradientTransformationExtraArgs,
    Inner,
    taking_extra_args,
)
from gradtx.core._trees import check_state
from gradtx.core._types import OptState, Params, Updates
from gradtx.schedules._schedule import Schedule
from gradtx.schedules._stateful import WrappedSchedule, is_stateful_schedule


class InjectStatefulHyperparamsState(NamedTuple):
    """The number of updates made, the hyperparameters of the last one, the schedules' states and the inner state.

    `hyperparams` is a plain dictionary: `state.hyperparams["learning_rate"] = 1e-4` holds from the next update on.
    """

    count: jax.Array
    hyperparams: dict[str, jax.Array]
    hyperparams_states: dict[str, Any]
    inner_state: OptState

    counts_from = {"count": 0}

    def metrics(self) -> dict[str, jax.Array]:
        return {name: x for name, x in self.hyperparams.items() if jnp.ndim(x) == 0}


class InjectHyperparamsState(NamedTuple):
    """The state class that Optax had before schedules had states; for `isinstance` and old checkpoints only."""

    count: jax.Array
    hyperparams: dict[str, jax.Array]
    inner_state: OptState


@checked
def inject_hyperparams(
    inner_factory: Callable[..., Any], static_args: Texts = (), hyperparam_dtype: AnyDType | None = None
) -> Callable[..., GradientTransformationExtraArgs]:
    """`inject_hyperparams(adamw)(1e-3)` is `adamw(1e-3)` with its hyperparameters in the state, to be read and set.

    For a factory of gradtx, the state holds the arguments that the signature declares as hyperparameters; for any other
    factory, all arguments that are numbers or arrays. A function given for such an argument is a schedule. All other
    arguments are passed on unchanged, also callable modules, unless wrapped: `WrappedSchedule(module)`.

    Args:
      inner_factory: the function that makes the transformation: a factory of gradtx or Optax, or one of your own.
      static_args: the names of arguments to keep out of the state, such as sizes or functions that are not schedules.
      hyperparam_dtype: the dtype of the numbers; None for the dtype of each argument, but at least float32. In bfloat16
        0.999 is 1: name such arguments in `static_args`. Integers given to factories of other libraries stay integers.

    Raises:
      ValueError: for a name in `static_args` that `inner_factory` does not take, or a dtype that is not floating.
    """
    if not callable(inner_factory):
        raise TypeError(f"inject_hyperparams: inner_factory must be a function, got {inner_factory!r}")
    static_args = (static_args,) if isinstance(static_args, str) else tuple(static_args)
    signature = inspect.signature(inner_factory)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    unknown = [name for name in static_args if name not in signature.parameters and not takes_any]
    if unknown:
        raise ValueError(
            f"inject_hyperparams: static_args has {unknown[0]!r}, which {_name(inner_factory)} does not take; "
            f"it takes {list(signature.parameters)}"
        )
    if hyperparam_dtype is not None and not jnp.issubdtype(hyperparam_dtype, jnp.floating):
        raise ValueError(
            f"inject_hyperparams: hyperparam_dtype must be a floating dtype, got {jnp.dtype(hyperparam_dtype).name}"
        )
    dtype = None if hyperparam_dtype is None else jnp.dtype(hyperparam_dtype)

    # Without the attributes of the function, since the result is not a factory of gradtx.
    @functools.wraps(inner_factory, updated=())
    def wrapped(*args: Any, **kwargs: Any) -> GradientTransformationExtraArgs:
        own = tuple(map(kept, args)), {name: kept(x) for name, x in kwargs.items()}
        return _Injected(inner_factory, static_args, dtype, *own)

    return wrapped


@register_value
class _Injected(GradientTransformationExtraArgs):
    """What `inject_hyperparams(factory)(...)` returns: it prints, compares and pickles as these two calls."""

    __slots__ = ("_made_by",)

    def __init__(self, inner_factory: Callable[..., Any], static_args: tuple, dtype: Any, args: tuple, kwargs: dict):
        call = _InnerCall(inner_factory, static_args, dtype, args, kwargs)

        def init(params: Params) -> InjectStatefulHyperparamsState:
            return call.init(params)

        def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
            return call.update(updates, state, params, extra)

        def parts(state: OptState) -> dict[str, tuple[Any, OptState]]:
            return {"inner_state": (call.at(state.hyperparams), state.inner_state)}

        super().__init__(init, update, parts=parts, needs=call.needs)
        made = self._expanded()
        self._set(_expansion=made._replace(init=of_shapes(init), update=bordered(update, parts), wide=update))
        self._set(_made_by=(inner_factory, static_args, dtype, args, kwargs))

    def _identity(self) -> Any:
        return freeze(self._made_by)

    @property
    def made_by(self) -> tuple[Callable[..., Any], dict[str, Any]]:
        names = ("inner_factory", "static_args", "hyperparam_dtype", "args", "kwargs")
        return inject_hyperparams, dict(zip(names, self._made_by, strict=True))

    def __repr__(self) -> str:
        inner_factory, static_args, dtype, args, kwargs = self._made_by
        options = f", {static_args!r}" if static_args or dtype is not None else ""
        options += f", {jnp.dtype(dtype).name!r}" if dtype is not None else ""
        shown = ", ".join([*map(described, args), *(f"{name}={described(value)}" for name, value in kwargs.items())])
        return f"inject_hyperparams({_name(inner_factory)}{options})({shown})"

    def __reduce__(self) -> tuple:
        return (_Injected, self._made_by)


class _InnerCall:
    """The call of the inner factory, its arguments sorted into numbers, schedules and the rest."""

    def __init__(self, inner_factory: Callable[..., Any], static_args: tuple, dtype: Any, args: tuple, kwargs: dict):
        self.factory, self.dtype = inner_factory, dtype
        self.signature = inspect.signature(inner_factory)
        self.where = f"inject_hyperparams({_name(inner_factory)})"
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.where}: {error}; the call is {_name(inner_factory)}{self.signature}") from None
        bound.apply_defaults()
        self.arguments = dict(bound.arguments)
        # The arguments that **kwargs collects are treated like all others.
        self.keywords = next((n for n, p in self.signature.parameters.items() if p.kind is p.VAR_KEYWORD), None)
        self.arguments |= self.arguments.pop(self.keywords, {}) if self.keywords else {}

        record = getattr(inner_factory, "factory", None)
        self.declared = set(record.hyperparameters) if isinstance(record, Factory) else None
        free = {n: x for n, x in self.arguments.items() if n not in static_args}
        self.schedules = {n: s for n, x in free.items() if (s := self._schedule(n, x)) is not None}
        self.numbers = {n: x for n, x in free.items() if n not in self.schedules and self._is_number(n, x)}
        # This call raises the errors for illegal values. A factory of another library may not accept schedules.
        self.needs = None if self.declared is None else needs(inner_factory(*args, **kwargs))
        self.dtypes = {n: self._dtype(n, x) for n, x in self.numbers.items()}

    def _schedule(self, name: str, x: Any) -> Any:
        """The argument as a stateful schedule; None if it is no schedule."""
        if self.declared is not None and name not in self.declared:
            return None
        if is_stateful_schedule(x):
            return x
        if isinstance(x, Schedule):
            return WrappedSchedule(x)
        # Where a number is declared, a module can only be a schedule; elsewhere a callable may be a dtype or a module.
        if not callable(x) or self.declared is None and (isinstance(x, type) or not is_function(x)):
            return None
        return WrappedSchedule(x)  # type: ignore[arg-type]  # what it returns is checked where it is called

    def _is_number(self, name: str, x: Any) -> bool:
        return (is_number(x) or is_array(x)) and (self.declared is None or name in self.declared)

    def _dtype(self, name: str, x: Any) -> Any:
        """The dtype in which a number is kept."""
        floating = is_number(x) and isinstance(x, float) or is_array(x) and jnp.issubdtype(x.dtype, jnp.floating)
        if not floating and self.declared is None:
            return jnp.asarray(x).dtype
        if self.dtype is not None:
            return jnp.dtype(self.dtype)
        return compute_dtype(jnp.asarray(x)) if is_array(x) and floating else jnp.result_type(float)

    def init(self, params: Params) -> InjectStatefulHyperparamsState:
        states = {n: schedule.init() for n, schedule in self.schedules.items()}
        # Copies, so that donating the state leaves the caller's arrays alive.
        numbers = {n: jnp.array(x, self.dtypes[n]) for n, x in self.numbers.items()}
        values = numbers | self._scheduled(states, {})
        inner_state = self.at(values).init(params)
        inner_state = jax.tree.map(lambda x: x.astype(x.dtype) if _weak(x) else x, inner_state)
        return InjectStatefulHyperparamsState(jnp.zeros([], jnp.int32), values, states, inner_state)

    def update(self, updates: Updates, state: OptState, params: Params, extra: dict) -> tuple[Updates, OptState]:
        check_state(self.where, state, InjectStatefulHyperparamsState)
        names = {*self.numbers, *self.schedules}
        if set(state.hyperparams) != names:
            raise ValueError(
                f"{self.where}: state.hyperparams must have the keys {sorted(names)}, got {sorted(state.hyperparams)}"
            )
        values = {n: self._kept(n, state.hyperparams[n]) for n in self.numbers}
        values |= self._scheduled(state.hyperparams_states, extra)
        states = {n: s.update(state.hyperparams_states[n], **extra) for n, s in self.schedules.items()}
        updates, inner_state = Inner(self.at(values)).update(updates, state.inner_state, params, **extra)
        inner_state = _alike(inner_state, state.inner_state)
        return updates, InjectStatefulHyperparamsState(safe_increment(state.count), values, states, inner_state)

    def at(self, values: Mapping[str, Any]) -> GradientTransformationExtraArgs:
        """The inner transformation with these values."""
        arguments = self.arguments | dict(values)
        named = {n: arguments.pop(n) for n in self.signature.parameters if n in arguments}
        if self.keywords:
            named[self.keywords] = arguments
        bound = inspect.BoundArguments(self.signature, named)  # type: ignore[arg-type]  # any ordered mapping does
        made = self.factory(*bound.args, **bound.kwargs)
        return taking_extra_args(f"{self.where}: the result", made)

    def _kept(self, name: str, x: Any) -> jax.Array:
        """The value in the state, which the user may have set: strongly typed, in the dtype that `init` gave it."""
        x, dtype = jnp.asarray(x), self.dtypes[name]
        # If the value was an integer at first, a float that was set later is not truncated.
        dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(x.dtype)
        return x.astype(dtype)

    def _scheduled(self, states: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, jax.Array]:
        values = {}
        for name, schedule in self.schedules.items():
            where, hint = f"{self.where}: {name}", "; if it is another function, name it in static_args"
            x = jnp.asarray(at_step(where, functools.partial(schedule, **extra), states[name], hint))
            values[name] = x.astype(compute_dtype(x) if self.dtype is None else self.dtype)
        return values


def _alike(new: OptState, old: OptState) -> OptState:
    """The new state in the dtypes of the old one, which other libraries may let the hyperparameters change."""
    if jax.tree.structure(new) != jax.tree.structure(old):
        return new
    return jax.tree.map(lambda x, y: x if not _weak(x) and _dtype(x) == _dtype(y) else x.astype(_dtype(y)), new, old)


def _weak(x: Any) -> bool:
    return getattr(x, "weak_type", False)


def _dtype(x: Any) -> Any:
    return getattr(x, "dtype", None)


def _name(factory: Callable) -> str:
    return getattr(factory, "__name__", None) or repr(factory)
