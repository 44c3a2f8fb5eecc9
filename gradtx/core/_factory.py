# SPDX-License-Identifier: Apache-2.0
"""The factory decorator: a transformation is its constructor call.

What the body of a factory returns decides how the value runs:

- another factory's value: a recipe. It runs as that value does; schedules are handed on to its stages.
- a rule of `per_parameter`: a stage, lifted to trees. Arrays and schedules among its hyperparameters reach the maths as
  the numbers of the step, because the body is called again with them, inside the compiled function.
- any other pair: a stage or wrapper of its own. With schedules, it is called again at each step with their values.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypeVar

import jax
import jax.numpy as jnp

from gradtx.core._calls import Call, Factory, Value, factory_decorator, freeze
from gradtx.core._checked import checked
from gradtx.core._initial import check_scalars
from gradtx.core._kernels import Rule, RuleSource
from gradtx.core._kinds import Names
from gradtx.core._lift import RuleStage, lifted
from gradtx.core._matrices import modes_of
from gradtx.core._naming import naming
from gradtx.core._ranges import is_number
from gradtx.core._scheduled import handed_on, initial, own_state, values_at
from gradtx.core._tracing import is_tracing
from gradtx.core._transformation import (
    Expansion,
    GradientTransformation,
    GradientTransformationExtraArgs,
    Inner,
    taking_extra_args,
    with_extra_args_support,
)
from gradtx.core._trees import explaining_leaves
from gradtx.core._types import EmptyState, OptState, Params, Updates

P = ParamSpec("P")
T = TypeVar("T", bound=GradientTransformationExtraArgs)

REGISTRY: dict[str, Factory] = {}
"""Every factory of transformations by its qualified name, in the order of definition."""


@checked
def transformation(body: Callable[P, Any]) -> Callable[P, GradientTransformationExtraArgs]:
    """Makes a function that returns a transformation into a factory of values, and registers it.

    The annotations of the signature are the specification: a parameter annotated with a range (`Decay`, `NonNegative`,
    ...) is a numeric hyperparameter, checked at the call and a leaf of the value. It may be a number, an array, a
    traced value or a schedule; use it only inside the functions that the body returns, where it is the number of the
    step. All other parameters are static, except transformations, which are children.

    Args:
      body: the function. Its signature is that of the factory; it returns the value of another factory, a
        `per_parameter(...)`, or any object with `init` and `update`.
    """
    return transformation_of(GradientTransformationExtraArgs)(body)


def transformation_of(kind: type[T]) -> Callable[[Callable[P, Any]], Callable[P, T]]:
    """`transformation` for values of a registered subclass, which has methods besides `init` and `update`."""

    def decorate(body: Callable[P, Any]) -> Callable[P, T]:
        construct = factory_decorator(body, kind, _expand)
        construct.init = construct.update = _refusal(body.__name__)  # type: ignore[attr-defined]  # function attributes
        REGISTRY[f"{body.__module__}.{body.__qualname__}"] = construct.factory  # type: ignore[attr-defined]  # set by the decorator
        return construct

    return decorate


def _refusal(name: str) -> Callable[..., Any]:
    """What a factory has as `init` and `update`, for whoever takes it for the transformation that it makes."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"{name} is a factory of transformations, it is none itself: call it, {name}(...)")

    return refuse


@checked
def per_parameter(
    init: Callable[..., Any] | None,
    update: Callable[..., Any],
    state: type | None = None,
    *,
    measure: Callable[..., Any] | None = None,
    shared: Callable[..., Any] | None = None,
    memory: Callable[..., Any] | None = None,
    needs_params: bool = False,
    needs: Names = (),
    counter: str = "count",
    uses_role: bool = False,
    idle: Callable[..., Any] | None = None,
    rescales: bool = False,
    whole: bool = False,
) -> GradientTransformationExtraArgs:
    """Lifts a rule on one array to trees. This is where new optimizers are written.

    ```
    init(p) -> slots                          what is remembered for one parameter
    update(g, slots, p, t) -> (u, slots)      its update
    measure(g, slots, p, t) -> scalars        optional: summed over the tree
    shared(t, total) -> scalars               optional: computed once a step, for all parameters
    ```

    One slot is passed bare, several as a tuple, none as `()`. `p` is None without parameters, `t` if the state has no
    count. What `shared` returns (without it, the total of `measure`) is the fifth argument of `update`.

    Args:
      init, update: the rule. A rule without slots needs no `init`.
      state: a named tuple class, None without slots. Its fields, without count and memory, are the slots in order, each
        a tree like the parameters. If it has the field `counter`, the lift keeps it, and `t` is the step, from 1.
      measure, shared: see above.
      memory: `memory() -> {field: initial value}`, for scalars of the whole tree that are remembered, such as an
        estimated distance. `measure` gets them as a fifth argument; `shared(t, total, memory)` also returns new ones.
      needs_params: whether `update` without parameters is an error.
      needs: names of extra arguments of the transformation's `update`, such as "value", that `shared` takes by keyword.
      counter: the name of the field that counts the steps.
      uses_role: whether `init`, `measure` and `update` take the parameter's `Role` by the keyword `role`; None without.
      idle: `idle(slots, t, memory) -> slots`, what becomes of the slots of a parameter without a gradient; None if they
        stay as they are. `memory` is that of before the step.
      rescales: for a `measure` that returns Σ |g|²: `shared` gets a pair as its total, (Σ |g/s|², s). s is 1, but where
        squares leave the range of the dtype a power of two. The norm is s times the root.
      whole: for a rule with numbers of a whole array, such as singular vectors: inside `over_axes` it gets whole
        arrays, gathered from the devices that have the parts. Slots with the shape of the parameter are split as it
        is, all others are on every device.

    The lift owns the rest. Arithmetic is at least float32: arrays arrive cast to the widest of float32, gradient, slot
    and parameter; slots are stored back in the dtype that `init` gave them; updates have the arithmetic's dtype until
    the outermost `update` returns them. A leaf without a gradient (None) gets no update and, without `idle`, keeps its
    slots. Each distinct shape and dtype is traced once.
    """
    name = getattr(update, "__qualname__", "rule")
    fields = (init, update, state or EmptyState, measure, shared, memory, needs_params, needs, counter, name)
    rule = Rule(*fields, uses_role, idle, rescales, whole)
    return GradientTransformationExtraArgs.from_rule(rule)


@checked
def per_matrix(
    init: Callable[..., Any] | None,
    update: Callable[..., Any],
    state: type | None = None,
    *,
    enter: Callable[..., Any] | None = None,
    entering: Names = (),
    memory: Callable[..., Any] | None = None,
    shared: Callable[..., Any] | None = None,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
    modes: Literal["matrix", "all"] = "matrix",
    needs_params: bool = False,
    needs: Names = (),
    counter: str = "count",
    uses_role: bool = False,
    takes_turns: bool = False,
) -> GradientTransformationExtraArgs:
    """Lifts a rule on one matrix (inputs, outputs) to trees. This is where new matrix optimizers are written.

    ```
    init(p) -> slots                          what is remembered for one matrix
    update(g, slots, p, t) -> (u, slots)      its update
    enter(g, slots, p, t) -> (x, slots)       optional: elementwise, before
    shared(t, total, memory) -> scalars       optional: computed once a step, for all matrices
    ```

    All of `per_parameter` holds. Where the matrices are is read off the roles: axes of a stack and of heads make many
    matrices of a parameter, `blocks` lie side by side in it, and the axes of a `kernel` count as inputs. Without a
    role, a parameter with two axes is a matrix, and any other is an error. Matrices that are alike run at once, as one
    batch, and are whole on each device while they do, wherever their parts lie. Slots with the shape of the matrix lie
    as the parameter does.

    Args:
      init, update, state, memory, shared, needs_params, needs, counter, uses_role: as in `per_parameter`; p is None
        unless `needs_params`.
      enter: for arithmetic on single elements, such as momentum: on many devices, each does its part. `update` gets
        what it returns in place of g, one array or a tree of them.
      entering: the names of the slots that `enter` takes and returns, the first of the state; `update` has the others.
      weight_dimension_numbers: a tree of `MuonDimensionNumbers` like the parameters (or a prefix, or a function from
        them to it), in place of the roles.
      modes: "all" takes parameters of any rank: where no role says what the inputs and outputs are, the rule gets
        arrays with all axes of a parameter.
      takes_turns: whether `update` takes by the keyword `turn` which kind of matrices this is, by shape, dtype and
        role, and how many kinds the tree has: (0, 3) is the first of three. So what is not done at every step need not
        be done for all of them at the same one.
    """
    fields = (init, update, state or EmptyState, None, shared, memory, needs_params, needs, counter)
    name = getattr(update, "__qualname__", "rule")

    def found(where: str, tree: Any) -> list:
        otherwise = "tensor" if modes == "all" else "refused"
        return modes_of(where, weight_dimension_numbers, tree, otherwise, takes_turns)

    rule = Rule(*fields, name, uses_role, enter=enter, entering=entering, modes_of=found)
    return GradientTransformationExtraArgs.from_rule(rule)


def _expand(call: Call) -> Callable[[], Expansion]:
    """Runs the body of a call, so that its errors appear there; the pair is made of what it returned on first use."""
    inner = call.factory.run(call.arguments)
    if not isinstance(inner, GradientTransformation):
        where = f"{call.factory.name}: what the body of the factory returns"
        inner = taking_extra_args(where, inner)
    lasting = inner._call is None and inner.rule is not None and not is_tracing()
    return functools.partial(_expansion, call, inner, lasting)


def _expansion(call: Call, inner: GradientTransformation, lasting: bool) -> Expansion:
    """What a call stands for whose body returned `inner`, by the three cases of this module's docstring."""
    if inner._call is not None:
        init, update = (naming(call.factory, call.arguments, f) for f in (inner.init, Inner(inner).update))
        return Expansion(init, update, inner=inner, parts=inner.parts)
    made = _stage(call, inner, lasting)
    return made._replace(init=explaining_leaves(call.factory.name, made.init))


def _stage(call: Call, inner: GradientTransformation, lasting: bool) -> Expansion:
    factory, arguments = call.factory, call.arguments
    moving = {n: v for n in factory.hyperparameters if (v := arguments[n]) is not None and not is_number(v)}
    if inner.rule is None:
        return _pair(factory, arguments, with_extra_args_support(inner), moving)
    rule = inner.rule._replace(name=factory.name)
    source = _rule_source(factory, arguments, moving, rule if lasting and not moving else None)
    is_scheduled = any(map(callable, moving.values()))
    stage = RuleStage(source, rule, moving, is_scheduled, is_bare=not is_scheduled)
    return Expansion(*lifted(stage), stage=stage)


def _rule_source(factory: Factory, arguments: dict, moving: dict[str, Any], settled: Rule | None) -> RuleSource:
    """The rule as a function of the values that move, compared by everything that does not.

    Where nothing moves, the rule is the one that the body has made; else the body runs again, inside the kernels. So it
    does if it ran in somebody's jit, of which there may be tracers in the rule.
    """
    fixed = {n: None if n in moving else v for n, v in arguments.items()}

    def rule_at(values: dict[str, Any]) -> Rule:
        return settled or factory.run({**fixed, **values}).rule._replace(name=factory.name)

    def find_key() -> tuple | None:
        # What a function closes over is not ours to keep: it may be an array, or a tracer of somebody's jit.
        if [x for x in jax.tree.leaves(fixed) if callable(x) and not isinstance(x, type | Value)]:
            return None
        return (factory, tuple(moving), tuple([(n, freeze(v)) for n, v in fixed.items()]))

    # 1 - 0.999 is off by 5e-5 in float32, as a constant it is folded in double precision.
    constant = frozenset(n for n in moving if getattr(factory.specs[n], "high", None) == 1)
    return RuleSource(rule_at, find_key, constant)


def _pair(factory: Factory, arguments: dict, inner: GradientTransformation, moving: dict[str, Any]) -> Expansion:
    if not any(map(callable, moving.values())):
        if not any(map(jnp.ndim, moving.values())):
            return inner._expanded()

        def refuse(*args: Any, **extra: Any) -> Any:
            check_scalars(factory.name, moving)

        return Expansion(refuse, refuse, parts=inner.parts, needs=inner.declared, gathers=inner.gathers)

    def at(values: dict) -> GradientTransformationExtraArgs:
        check_scalars(factory.name, values)
        return with_extra_args_support(factory.run({**arguments, **values}))

    def parts(state: OptState) -> dict[str, tuple[Any, OptState]]:
        own = own_state(factory.name, state)
        prefix = "" if own is state else "inner_state."
        return {prefix + path: part for path, part in at(values_at(factory.name, moving, state)).parts(own).items()}

    def init(params: Params) -> OptState:
        return initial(factory.name, moving, lambda values: at(values).init(params))

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        own = own_state(factory.name, state)
        now = at(values_at(factory.name, moving, state))
        updates, own = now.update(updates, own, params, **extra)
        return updates, handed_on(state, own)

    return Expansion(init, update, parts=parts, needs=inner.declared, gathers=inner.gathers)
