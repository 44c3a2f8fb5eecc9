# SPDX-License-Identifier: Apache-2.0
"""The contract: a transformation is a pair of pure functions `(init, update)`, and a value."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from gradtx.core._calls import Value, register_value
from gradtx.core._lift import Rule
from gradtx.core._types import OptState, Params, Updates

Parts = Callable[[OptState], Mapping[str, tuple[Any, OptState]]]


class GradientTransformation(Value):
    """A pair of pure functions: `init(params) -> state` and `update(updates, state, params=None) -> (updates, state)`.

    Immutable. It unpacks and indexes like a pair. The value of a factory call prints, compares, hashes and pickles as
    that call, and is a pytree whose leaves are the numeric hyperparameters; one made by hand from two functions
    compares by these and has no leaves.

    Args:
      init, update: the two functions.
      rule: set by `per_parameter` only.
      parts: a function from a state to the transformations inside and their parts of that state, by path:
        `lambda state: {"inner_state": (inner, state.inner_state)}`. None if there are none inside.
      needs: the names of all extra arguments that `update` must be given, also those that transformations inside need;
        None to read them off the signature of `update`. See `gradtx.needs`.
    """

    __slots__ = ("_init", "_update", "_inner", "_rule", "_parts", "_needs")
    _fields = ("init", "update")  # clients read the fields of Optax's class, a named tuple

    def __init__(
        self,
        init: Callable,
        update: Callable,
        *,
        rule: Rule | None = None,
        parts: Parts | None = None,
        needs: Iterable[str] | None = None,
    ):
        for name, function in (("init", init), ("update", update)):
            if not callable(function):
                raise TypeError(f"{type(self).__name__}: {name} must be a function, got {function!r}")
        declared = tuple(sorted(set(needs))) if needs is not None else required_arguments(update) or None
        self._set(_call=None, _init=init, _update=update, _inner=None, _rule=rule, _parts=parts, _needs=declared)

    def _set(self, **slots: Any) -> None:
        for name, value in slots.items():
            object.__setattr__(self, name, value)

    @property
    def init(self) -> Callable[[Params], OptState]:
        """Makes the state for a tree of parameters."""
        return self._expanded()._init

    @property
    def update(self) -> Callable[..., tuple[Updates, OptState]]:
        """Turns gradients into updates: `update(updates, state, params=None) -> (updates, state)`."""
        return self._expanded()._update

    @property
    def expanded(self) -> "GradientTransformation":
        """What a recipe stands for, such as the `chain` inside `adam(1e-3)`; a stage stands for itself."""
        inner = self._expanded()._inner
        return self if inner is None else inner

    @property
    def rule(self) -> Rule | None:
        """The one-array rule behind a stage made with `per_parameter`; None for everything else."""
        return self._expanded()._rule

    @property
    def declared(self) -> tuple[str, ...] | None:
        """The extra arguments that a stage or wrapper declares its `update` to need; None if it declares nothing."""
        return self._expanded()._needs if self.rule is None else self.rule.needs

    def parts(self, state: OptState) -> dict[str, tuple[Any, OptState]]:
        """The transformations inside a chain or wrapper with their parts of its state, by path in the state."""
        parts = self._expanded()._parts
        return {} if parts is None else dict(parts(state))

    def _expanded(self) -> "GradientTransformation":
        # Built on first use: JAX may rebuild the value from placeholders, which the body of a factory cannot take.
        if not hasattr(self, "_init"):
            assert self._call is not None
            self._set(**self._call.factory.expand(self._call))
        return self

    def _identity(self) -> Any:
        return (self._init, self._update)

    def __iter__(self) -> Iterator[Callable]:
        return iter((self.init, self.update))

    def __getitem__(self, index: int) -> Callable:
        return (self.init, self.update)[index]

    def __len__(self) -> int:
        return 2

    def __repr__(self) -> str:
        if self._call is not None:
            return repr(self._call)
        names = ", ".join(getattr(f, "__qualname__", repr(f)) for f in self)
        return f"{type(self).__name__}({names})"

    def __reduce__(self) -> tuple:
        return (type(self), (self.init, self.update)) if self._call is None else super().__reduce__()


class GradientTransformationExtraArgs(GradientTransformation):
    """A transformation whose `update` also takes keyword arguments: `update(updates, state, params=None, **extra)`."""

    __slots__ = ()


register_value(GradientTransformation)
register_value(GradientTransformationExtraArgs)


def is_transformation(tx: Any) -> bool:
    """Whether an object has functions `init` and `update`, whether it is gradtx's, Optax's or of any other class."""
    return callable(getattr(tx, "init", None)) and callable(getattr(tx, "update", None))


def check_transformation(where: str, tx: Any) -> Any:
    """The object itself, or an error if it is not a transformation."""
    if is_transformation(tx):
        return tx
    if hasattr(tx, "factory") and not isinstance(tx, Value):
        raise TypeError(f"{where} must be a transformation, got the factory {tx.__name__}: call it, {tx.__name__}(...)")
    raise TypeError(f"{where} must be a transformation (an object with init and update), got {tx!r}")


def required_arguments(update: Callable) -> tuple[str, ...]:
    """The keyword arguments without a default in the signature of an `update`."""
    try:
        parameters = inspect.signature(update).parameters.values()
    except (ValueError, TypeError):  # functions that are not written in Python may have none
        return ()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty)


def with_extra_args_support(tx: Any) -> GradientTransformationExtraArgs:
    """The same transformation with an `update` that accepts any extra argument and passes on those that `tx` takes.

    Args:
      tx: any object with `init` and `update`. The arguments that it takes are read off the signature of its `update`.
    """
    return as_inner("with_extra_args_support: tx", tx)


def as_inner(where: str, tx: Any) -> GradientTransformationExtraArgs:
    """`tx` as a wrapper runs it, with any extra arguments; an error, which begins with `where`, if it is none."""
    check_transformation(where, tx)
    if isinstance(tx, GradientTransformationExtraArgs):
        return tx
    parameters = inspect.signature(tx.update).parameters.values()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return GradientTransformationExtraArgs(tx.init, tx.update, parts=getattr(tx, "parts", None))
    taken = {p.name for p in parameters if p.kind is not inspect.Parameter.POSITIONAL_ONLY}

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        return tx.update(updates, state, params, **{n: v for n, v in extra.items() if n in taken})

    declared = required_arguments(tx.update) or None
    return GradientTransformationExtraArgs(tx.init, update, parts=getattr(tx, "parts", None), needs=declared)
