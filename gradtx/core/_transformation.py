# SPDX-License-Identifier: Apache-2.0
"""The contract: a transformation is a pair of pure functions `(init, update)`, and a value."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, Generic, NamedTuple, Self

from gradtx.core._borders import Parts, bordered, of_shapes
from gradtx.core._calls import Call, Value, expand_inside, register_value
from gradtx.core._kernels import Rule, RuleSource
from gradtx.core._kinds import Kind
from gradtx.core._lift import Mask, RuleStage, lifted
from gradtx.core._nesting import arguments_inside, arguments_named, is_factory, is_transformation, replaced, spelled
from gradtx.core._types import OptState, Params, State, UpdateFn, Updates


class Links(NamedTuple):
    """The stages of a chain, and what its state is to them.

    Attributes:
      opened: from the state of the chain to the states of the stages, in order; raises for any other state.
      closed: back.
    """

    stages: "Sequence[Inner]"
    opened: Callable[[OptState], Sequence[OptState]]
    closed: Callable[[Iterable[OptState]], OptState]


class Expansion(NamedTuple):
    """What a transformation is made of: of a call, what the body of its factory returned.

    `wide` is the `update` of which chains and wrappers make theirs. It may return wider updates than `update` (see
    `core._borders`); None if there is no difference. Of a stage that is a rule, `stage` is it; of a chain, `links` are
    its stages; of a wrapper that only hides leaves, `mask` is how it does, and what is inside.
    """

    init: Callable[..., Any]
    update: Callable[..., Any]
    wide: Callable[..., Any] | None = None
    inner: "GradientTransformation | None" = None
    stage: RuleStage | None = None
    links: Links | None = None
    mask: "tuple[Mask, Inner] | None" = None
    parts: Parts | None = None
    needs: tuple[str, ...] | None = None
    gathers: bool = False

    @property
    def rule(self) -> Rule | None:
        return None if self.stage is None else self.stage.rule


class GradientTransformation(Value, Generic[State]):
    """A pair of pure functions: `init(params) -> state` and `update(updates, state, params=None) -> (updates, state)`.

    Immutable. It unpacks and indexes like a pair. The value of a factory call prints, compares, hashes and pickles as
    that call, and is a pytree whose leaves are the numeric hyperparameters; one made by hand from two functions
    compares by these and has no leaves.

    Args:
      init, update: the two functions.
      links, mask: set by chains and masks only.
      parts: a function from a state to the transformations inside and their parts of that state, by path:
        `lambda state: {"inner_state": (inner, state.inner_state)}`. None if there are none inside.
      needs: the names of all extra arguments that `update` must be given, also those that transformations inside need;
        None to read them off the signature of `update`. See `gradtx.needs`.
      gathers: whether it gathers parameters that `gradtx.sharding.over_axes` says are split, for `describe` to tell.
    """

    __slots__ = ("_expansion", "_later", "_rule")
    _expansion: Expansion | None
    _later: Callable[[], Expansion] | None  # makes the expansion, where the body of the factory has run
    _rule: Rule
    _fields = ("init", "update")  # clients read the fields of Optax's class, a named tuple

    def __init__(
        self,
        init: Callable[..., Any],
        update: Callable[..., Any],
        *,
        links: Links | None = None,
        mask: "tuple[Mask, Inner] | None" = None,
        parts: Parts | None = None,
        needs: Iterable[str] | None = None,
        gathers: bool = False,
    ):
        for name, function in (("init", init), ("update", update)):
            if not callable(function):
                raise TypeError(f"{type(self).__name__}: {name} must be a function, got {function!r}")
        declared = None if needs is None else tuple(sorted(set(needs)))
        made = Expansion(init, update, links=links, mask=mask, parts=parts, needs=declared, gathers=gathers)
        self._set(_call=None, _expansion=made)

    @classmethod
    def from_call(cls, call: Call) -> Self:
        self = super().from_call(call)
        object.__setattr__(self, "_expansion", None)
        object.__setattr__(self, "_later", None)
        return self

    @classmethod
    def from_rule(cls, rule: Rule) -> Self:
        """The transformation of a rule by itself. It is lifted when it is used, and most are not: a factory takes the
        rule out and lifts it with the hyperparameters of its call."""
        self = cls.__new__(cls)
        self._set(_call=None, _expansion=None, _rule=rule)
        return self

    def _set(self, **slots: Any) -> None:
        for name, value in slots.items():
            object.__setattr__(self, name, value)

    @property
    def init(self) -> Callable[[Params], State]:
        """Makes the state for a tree of parameters."""
        return (self._expansion or self._expanded()).init

    @property
    def update(self) -> UpdateFn[State]:
        """Turns gradients into updates: `update(updates, state, params=None) -> (updates, state)`.

        Each update has the promoted dtype of its gradient and its parameter, or a narrower one.
        """
        return (self._expansion or self._expanded()).update

    @property
    def expanded(self) -> "GradientTransformation":
        """What a recipe stands for, such as the `chain` inside `adam(1e-3)`; a stage stands for itself."""
        inner = (self._expansion or self._expanded()).inner
        return self if inner is None else inner

    @property
    def rule(self) -> Rule | None:
        """The one-array rule behind a stage made with `per_parameter`; None for everything else."""
        if self._call is None and self._expansion is None:
            return self._rule
        return (self._expansion or self._expanded()).rule

    @property
    def gathers(self) -> bool:
        """Whether its own work, not that of transformations inside, is done on whole parameters inside `over_axes`."""
        made = self._expansion or self._expanded()
        return made.gathers if made.rule is None else made.rule.whole or made.rule.modes_of is not None

    @property
    def declared(self) -> tuple[str, ...] | None:
        """The extra arguments that a stage or wrapper declares its `update` to need; None if it declares nothing."""
        made = self._expansion or self._expanded()
        if made.rule is not None:
            return made.rule.needs
        if made.needs is not None or made.inner is not None:
            return made.needs
        return required_arguments(made.update) or None

    def parts(self, state: OptState) -> dict[str, tuple[Any, OptState]]:
        """The transformations inside a chain or wrapper with their parts of its state, by path in the state."""
        parts = (self._expansion or self._expanded()).parts
        return {} if parts is None else dict(parts(state))

    def replace(self, **changes: Any) -> Self:
        """The same call with other arguments: `adam(1e-3).replace(learning_rate=1e-4)`.

        An argument that it has not itself is that of the only stage inside that has it, as for a chain.
        """
        inner = [name for name in changes if self._call is not None and name not in self.arguments]
        tx = (
            super().replace(**{n: x for n, x in changes.items() if n not in inner})
            if len(inner) < len(changes)
            else self
        )
        for name in inner:
            found = arguments_named(tx, name)
            if len(found) != 1:
                there = dict.fromkeys(n for _, n in arguments_inside(tx))
                instead = f"which of {spelled(found)}? give the full name" if found else f"there are {', '.join(there)}"
                raise TypeError(f"{tx.factory.name}: no argument {name}; {instead}")  # type: ignore[union-attr]  # made by a call
            tx = replaced(tx, *found[0], changes[name])
        return tx

    def __getattr__(self, name: str) -> Any:
        """Only asked for what is not there, which may be an argument of a stage inside."""
        if not name.startswith("_") and self._call is not None and name not in self.arguments:
            if found := arguments_named(self, name):
                way = f"replace({name}=...)" if len(found) == 1 else "replace(**{...: ...})"
                raise AttributeError(
                    f"{self!r} has no attribute {name!r}; inside of it is the argument {spelled(found)}, "
                    f"and {way} makes another"
                )
        return super().__getattr__(name)

    def _run_body(self) -> None:
        assert self._call is not None
        object.__setattr__(self, "_later", self._call.factory.expand(self._call))

    def _expanded(self) -> Expansion:
        if self._expansion is None:
            made = self._expand()
            wide = made.wide or made.update
            made = made._replace(init=of_shapes(made.init), update=bordered(wide, made.parts), wide=wide)
            object.__setattr__(self, "_expansion", made)
            if self._call is not None:
                expand_inside(self._call)
        assert self._expansion is not None
        return self._expansion

    def _expand(self) -> Expansion:
        if self._call is None:
            rule = self._rule
            stage = RuleStage(RuleSource(lambda values: rule), rule, {})
            return Expansion(*lifted(stage), stage=stage)
        # JAX also builds values from placeholders, which no body could take: so the body of one it built runs only now.
        later = self._later or self._call.factory.expand(self._call)
        return later()

    def _identity(self) -> Any:
        return (self.init, self.update)

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        return iter((self.init, self.update))

    def __getitem__(self, index: int) -> Callable[..., Any]:
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


class GradientTransformationExtraArgs(GradientTransformation[State]):
    """A transformation whose `update` also takes keyword arguments: `update(updates, state, params=None, **extra)`."""

    __slots__ = ()


register_value(GradientTransformation)
register_value(GradientTransformationExtraArgs)


def check_transformation(where: str, tx: Any) -> Any:
    """The object itself, or an error if it is not a transformation."""
    if is_transformation(tx):
        return tx
    if is_factory(tx):
        raise TypeError(f"{where} must be a transformation, got the factory {tx.__name__}: call it, {tx.__name__}(...)")
    if isinstance(tx, tuple | list) and tx and all(map(is_transformation, tx)):
        raise TypeError(f"{where} must be a transformation, got a {type(tx).__name__} of them: give chain(*stages)")
    raise TypeError(f"{where} must be a transformation (an object with init and update), got {tx!r}")


class _TransformationKind(Kind):
    """The kind of transformations, whose errors tell what was meant instead."""

    def check(self, where: str, name: str, optional: bool, value: Any) -> Any:
        return None if value is None and optional else check_transformation(f"{where}: {name}", value)


Transformation = Annotated[Any, _TransformationKind("a transformation", lambda value: None)]
"""The annotation of an argument that is a transformation."""


def required_arguments(update: Callable[..., Any]) -> tuple[str, ...]:
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
    return taking_extra_args("with_extra_args_support: tx", tx)


def taking_extra_args(where: str, tx: Any) -> GradientTransformationExtraArgs:
    """`with_extra_args_support`; an error, which begins with `where`, if `tx` is no transformation."""
    if isinstance(tx, GradientTransformationExtraArgs):
        return tx
    check_transformation(where, tx)
    parameters = inspect.signature(tx.update).parameters.values()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return GradientTransformationExtraArgs(tx.init, tx.update, parts=getattr(tx, "parts", None))
    taken = {p.name for p in parameters if p.kind is not inspect.Parameter.POSITIONAL_ONLY}

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        return tx.update(updates, state, params, **{n: v for n, v in extra.items() if n in taken})

    declared = required_arguments(tx.update) or None
    return GradientTransformationExtraArgs(tx.init, update, parts=getattr(tx, "parts", None), needs=declared)


class Inner:
    """A transformation as chains and wrappers run it: with any extra arguments, and wide updates."""

    __slots__ = ("_tx",)

    def __init__(self, tx: GradientTransformation):
        self._tx = tx

    @property
    def init(self) -> Callable[[Params], OptState]:
        return self.made.init

    @property
    def update(self) -> Callable[..., tuple[Updates, OptState]]:
        made = self.made
        return made.wide or made.update

    @property
    def made(self) -> Expansion:
        return self._tx._expansion or self._tx._expanded()


def as_inner(where: str, tx: Any) -> Inner:
    """`tx` as a wrapper runs it; an error, which begins with `where`, if it is no transformation."""
    return Inner(taking_extra_args(where, tx))
