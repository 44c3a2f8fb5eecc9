# SPDX-License-Identifier: Apache-2.0
"""Reasons to skip a step: the rules of `guard`, as values."""

import enum
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec

import jax
import jax.numpy as jnp

from gradtx.core._calls import Call, Value, factory_decorator, register_value
from gradtx.core._checked import checked
from gradtx.core._ranges import Positive, PositiveInt
from gradtx.core._types import Params, Updates
from gradtx.numerics._windows import mean_and_std, push, z_score


class SkipReason(enum.IntEnum):
    """Why a step was skipped, as `metrics` reports it. Rules of your own may use any other number above 0."""

    NONE = 0
    NON_FINITE = 1
    NORM_SPIKE = 2
    LOSS_SPIKE = 3
    PREDICATE = 4


class GuardedStep(NamedTuple):
    """What a rule knows of a step: gradients, parameters, norm, loss (None if not given) and other extra arguments.

    The norm is that of all gradients together. If norm or loss is not finite, the step is skipped whatever rules say.
    """

    updates: Updates
    params: Params
    norm: jax.Array
    value: jax.Array | None
    extra: dict[str, Any]


def _keep(step: GuardedStep, state: Any) -> Any:
    return state


@register_value
class GuardRule(Value):
    """A rule by which `guard` skips steps, with a state that it keeps of the steps taken:

    ```
    refuses(step, state) -> bool      whether to skip this step
    init() -> state                   a tree of arrays; by default empty
    accept(step, state) -> state      the state after a step was taken; by default unchanged
    ```

    Decorate a function that returns a `GuardRule` with `guard_rule`: its rules then print, compare and hash as the
    calls that made them.

    Args:
      reason: the number by which `metrics` reports this rule, at least 1.
      refuses, init, accept: the functions above; `step` is a `GuardedStep`.
    """

    __slots__ = ("_judge",)

    def __init__(
        self,
        reason: int,
        refuses: Callable[..., Any],
        init: Callable[[], Any] = tuple,
        accept: Callable[..., Any] = _keep,
    ):
        if reason < 1:
            raise ValueError(f"GuardRule: reason must be at least 1, got {reason}; 0 stands for no reason")
        for name, function in (("refuses", refuses), ("init", init), ("accept", accept)):
            if not callable(function):
                raise TypeError(f"GuardRule: {name} must be a function, got {function!r}")
        object.__setattr__(self, "_call", None)
        object.__setattr__(self, "_judge", (int(reason), refuses, init, accept))

    @property
    def reason(self) -> int:
        """The number by which `metrics` reports this rule."""
        return self._expanded()._judge[0]

    @property
    def refuses(self) -> Callable[[GuardedStep, Any], jax.Array]:
        """Whether to skip a step: `refuses(step, state) -> bool`."""
        return self._expanded()._judge[1]

    @property
    def init(self) -> Callable[[], Any]:
        """The state before the first step: `init() -> state`."""
        return self._expanded()._judge[2]

    @property
    def accept(self) -> Callable[[GuardedStep, Any], Any]:
        """The state after a step was taken: `accept(step, state) -> state`."""
        return self._expanded()._judge[3]

    def _expanded(self) -> "GuardRule":
        if not hasattr(self, "_judge"):
            assert self._call is not None
            object.__setattr__(self, "_judge", self._call.factory.expand(self._call))
        return self

    def _identity(self) -> Any:
        return self._judge

    def __reduce__(self) -> tuple:
        return (type(self), self._judge) if self._call is None else super().__reduce__()


P = ParamSpec("P")


@checked
def guard_rule(body: Callable[P, GuardRule]) -> Callable[P, GuardRule]:
    """Makes a function that returns a `GuardRule` into a factory of such values.

    Parameters annotated with a range are checked at the call and are leaves of the value, and of a `guard` around it.

    Args:
      body: the function. Its signature becomes that of the factory.
    """
    return factory_decorator(body, GuardRule, _expand, schedules=False)


def _expand(call: Call) -> tuple:
    return call.factory.run(call.arguments)._judge


class WindowState(NamedTuple):
    """The last accepted values, oldest first, and the number of them; unused places come before them."""

    values: jax.Array
    filled: jax.Array

    def metrics(self) -> dict[str, jax.Array]:
        return dict(zip(("mean", "std"), mean_and_std(self.values, self.filled), strict=True))


@guard_rule
def norm_spike(window: PositiveInt = 128, z: Positive = 6.0, warmup: PositiveInt = 32) -> GuardRule:
    """Refuses a step whose gradient norm exceeds mean + z * standard deviation of the last norms.

    Only norms of steps taken are remembered, so a spike does not raise the limit for the next one.

    Args:
      window: how many norms are remembered.
      z: how many standard deviations above the mean the limit lies.
      warmup: how many norms must be remembered before any step is refused, at most `window`.
    """
    return _spike("norm_spike", SkipReason.NORM_SPIKE, lambda step: step.norm, window, z, warmup)


@guard_rule
def loss_spike(window: PositiveInt = 128, z: Positive = 6.0, warmup: PositiveInt = 32) -> GuardRule:
    """Refuses a step whose loss exceeds mean + z * standard deviation of the last losses.

    `update` needs the loss: `update(g, state, params, value=loss)`. Only losses of steps taken are remembered.

    Args:
      window: how many losses are remembered.
      z: how many standard deviations above the mean the limit lies.
      warmup: how many losses must be remembered before any step is refused, at most `window`.
    """

    def loss(step: GuardedStep) -> jax.Array:
        if step.value is None:
            raise ValueError("loss_spike: update needs value: call update(updates, state, params, value=loss)")
        return step.value

    return _spike("loss_spike", SkipReason.LOSS_SPIKE, loss, window, z, warmup)


@guard_rule
def skip_when(predicate: Callable[[GuardedStep], Any], reason: PositiveInt = SkipReason.PREDICATE.value) -> GuardRule:
    """Refuses the steps for which a function returns True: `skip_when(lambda step: step.norm > 10)`.

    Args:
      predicate: a function from the `GuardedStep` to a boolean scalar.
      reason: the number by which `metrics` reports this rule, so that several can be told apart.
    """
    return GuardRule(reason, lambda step, state: predicate(step))


def _spike(name: str, reason: int, number: Callable, window: int, z: Any, warmup: int) -> GuardRule:
    if warmup > window:
        raise ValueError(f"{name}: warmup must be at most window, which is {window}, got {warmup}")

    def init() -> WindowState:
        return WindowState(jnp.zeros([window], jnp.result_type(float)), jnp.zeros([], jnp.int32))

    def refuses(step: GuardedStep, state: WindowState) -> jax.Array:
        x = number(step)
        far = z_score(x, *mean_and_std(*state)) > jnp.asarray(z, x.dtype)
        return far & (state.filled >= warmup)

    def accept(step: GuardedStep, state: WindowState) -> WindowState:
        return WindowState(*push(*state, number(step)))

    return GuardRule(reason, refuses, init, accept)
