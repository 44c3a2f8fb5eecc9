# SPDX-License-Identifier: Apache-2.0
"""A rule on one array, and its compiled functions: the kernels that a tree's leaves are given to one by one.

A leaf's work is one call of an inner `jax.jit`, so that a rule is traced once for each distinct shape and dtype, and an
update outside `jit` is one dispatch a leaf: also that by several rules one after another, which are `joined`. A leaf in
a box (see `core._roles`) may be a stack of parameters, each of which a rule then runs on by itself.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._buckets import Bucket, update_matrices
from gradtx.core._calling import called_on_leaves, compiled_outside
from gradtx.core._dtypes import compute_dtype, ending, promotion, widen, widen_floats
from gradtx.core._over_devices import LEAF, WHOLE, Leaf, Split, gathered, on_leaf, once, own_part, whole_shape_of
from gradtx.core._roles import Boxed, Role
from gradtx.core._stacks import cut, over_stack, slots_of, stack_axes


class _Fields(NamedTuple):
    init: Callable[..., Any] | None
    update: Callable[..., Any]
    state: Any  # a named tuple class
    measure: Callable[..., Any] | None
    shared: Callable[..., Any] | None
    memory: Callable[..., Any] | None
    needs_params: bool
    needs: tuple[str, ...]
    counter: str
    name: str
    uses_role: bool = False
    idle: Callable[..., Any] | None = None
    rescales: bool = False
    whole: bool = False
    enter: Callable[..., Any] | None = None
    entering: tuple[str, ...] = ()
    modes_of: Callable[..., list] | None = None


class Rule(_Fields):
    """A rule on one array; see `per_parameter`. What its state is like is read off once."""

    @functools.cached_property
    def slots(self) -> tuple[str, ...]:
        """The state's fields that hold a tree like the parameters."""
        scalars = {self.counter, *(() if self.memory is None else self.memory())}
        return tuple(f for f in self.state._fields if f not in scalars)

    @functools.cached_property
    def counts(self) -> bool:
        """Whether the state counts the steps."""
        return self.counter in self.state._fields

    def role(self, role: Role | None, ndim: int) -> dict[str, Any]:
        """What the rule is told of the role of one parameter of an array of this rank."""
        return {"role": None if role is None else role.logical(ndim)} if self.uses_role else {}


def init_whole(rule: Rule, split: Split, p: jax.Array, told: dict) -> tuple:
    """The slots of a rule that runs on whole arrays; of those with the shape of the parameter, this device's part."""
    whole = gathered(p, split)
    with on_leaf(WHOLE, p.ndim):
        slots = rule.init(whole, **told)  # type: ignore[misc]  # has one, as it has slots
    return jax.tree.map(lambda x: own_part(x, split) if jnp.shape(x) == whole.shape else x, slots)


def on_whole(rule: Rule, split: Split, arguments: tuple, told: dict, run: Callable[..., Any], cuts: bool) -> Any:
    """What `run` returns for the whole of a leaf of which each device has a part.

    Of updates and slots (`cuts`) it is this device's part, of measures they are those of one device.
    """
    g, slots, p, *others = arguments
    like = jax.ShapeDtypeStruct(whole_shape_of(g.shape, split), g.dtype if p is None else p.dtype)
    made = () if rule.init is None else jax.eval_shape(lambda p: rule.init(p, **told), like)  # type: ignore[misc]
    kept = [x.shape == like.shape for x in jax.tree.leaves(made)]

    def mapped(f: Callable[..., jax.Array], tree: Any) -> Any:
        leaves, treedef = jax.tree.flatten(tree)
        return treedef.unflatten([f(x, split) if own else x for x, own in zip(leaves, kept, strict=True)])

    g, p, slots = gathered(g, split), None if p is None else gathered(p, split), mapped(gathered, slots)
    with on_leaf(WHOLE, g.ndim):
        found = run(rule, (g, slots, p, *others), told)
    if not cuts:
        return once(found)
    u, new_slots = found
    return own_part(u, split), mapped(own_part, new_slots)


def _no_key() -> None:
    return None


class RuleSource:
    """A rule as a function of the hyperparameters that move (arrays and schedules).

    Sources with equal keys share one compiled function; without a key, a source has its own. The key is found when it
    is needed. `constant` are the names of hyperparameters that are better constants of the rule than arguments where
    groups of parameters differ in them.
    """

    def __init__(
        self,
        at: Callable[[dict[str, Any]], Rule],
        find_key: Callable[[], Any] = _no_key,
        constant: frozenset[str] = frozenset(),
    ):
        self.at, self.find_key, self.constant = at, find_key, constant
        self.updates: dict[tuple[RuleSource, ...], Callable[..., Any]] = {}
        self._fixed: dict[tuple, RuleSource] = {}

    @functools.cached_property
    def key(self) -> Any:
        return self.find_key()

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, RuleSource) and self.key is not None and self.key == other.key)

    def __hash__(self) -> int:
        return object.__hash__(self) if self.key is None else hash(self.key)

    def fixed(self, constants: tuple) -> "RuleSource":
        """The source with these hyperparameters, pairs of name and number, as constants."""
        if not constants:
            return self
        if constants not in self._fixed:
            self._fixed[constants] = RuleSource(
                lambda values: self.at({**values, **dict(constants)}),
                lambda: None if self.key is None else (self.key, constants),
            )
        return self._fixed[constants]

    @functools.cached_property
    def kernels(self) -> "Kernels":
        return _kernels(self) if self.key is None else shared_kernels(self)


class Kernels(NamedTuple):
    measure: Callable[..., Any]
    shared: Callable[..., Any]
    update_matrices: Callable[..., Any]


class OnLeaf(NamedTuple):
    """What one of several rules that run on a leaf one after another gets there.

    Attributes:
      box: an empty box with the facts of the leaf that the rule is told; None without.
      common: a tuple, of what is shared by all leaves or of nothing.
    """

    values: dict[str, Any]
    box: Boxed | None
    slots: Any
    count: Any
    common: tuple


def joined(sources: "tuple[RuleSource, ...]") -> Callable[..., Any]:
    """`update(parts, g, p) -> (u, slots of each)`: the compiled update of a leaf by these rules, one after another."""
    without_key = [source for source in sources if source.key is None]
    if not without_key:
        return shared_updates(sources)
    kept = without_key[0].updates
    if sources not in kept:
        kept[sources] = _update(sources)
    return kept[sources]


def _update(sources: "tuple[RuleSource, ...]") -> Callable[..., Any]:
    def update(parts: list[OnLeaf], g: Any, p: Any) -> tuple[Any, list]:
        slots = []
        for source, part in zip(sources, parts, strict=True):
            g, new = _updated(source, part, g, p)
            slots.append(new)
        return g, slots

    return called_on_leaves(update, at=1)


shared_updates = functools.lru_cache(maxsize=1024)(_update)


def _updated(source: RuleSource, part: OnLeaf, g: Any, p: Any) -> tuple:
    slots = part.slots

    def run(rule: Rule, arguments: tuple, told: dict) -> tuple:
        returned, shape = rule.update(*arguments, **told), arguments[0].shape
        if not isinstance(returned, tuple | list) or len(returned) != 2:
            raise TypeError(f"update must return the update and the new slots, (u, slots), got {_kind(returned)}")
        u, new_slots = returned
        if jax.tree.structure(new_slots) != jax.tree.structure(slots):
            raise TypeError(f"update must return new slots like the old, {_kind(slots)}, got {_kind(new_slots)}")
        if jnp.shape(u) != shape:
            raise ValueError(f"the gradient has shape {shape}, but the update has shape {jnp.shape(u)}")
        if any([x.dtype == jnp.float16 for x in jax.tree.leaves(slots)]):
            new_slots = _ending(rule.slots, new_slots, arguments[1], slots)
        return u, new_slots

    g = g if part.box is None else part.box.holding(g)
    (u, new_slots), _ = _on_one_leaf(source, part.values, g, slots, p, part.count, part.common, run)
    return u, jax.tree.map(_stored, new_slots, slots)


def _on_one_leaf(
    source: RuleSource,
    values: dict,
    g: Any,
    slots: Any,
    p: Any,
    count: Any,
    common: tuple,
    run: Callable[..., Any],
    cuts: bool = True,
) -> tuple:
    """What `run(rule, arguments, told)` returns for a leaf, in the dtype of the work, and the leaf's stack.

    `cuts` says that these are an update and slots.
    """
    role, split, g = (g.role, g.split, g.value) if isinstance(g, Boxed) else (None, None, g)
    stack = () if role is None else stack_axes(role, g.ndim)
    dtype = compute_dtype(g, slots, p)
    g, slots, p, t, values = widen((g, slots, p, count, values), dtype)
    common = widen_floats(common, dtype) if common else ()

    def on_one(values: dict, g: jax.Array, slots: Any, p: Any, common: tuple) -> Any:
        rule, part = source.at(values), split and split.without(stack, g.ndim + len(stack))
        token = LEAF.set(Leaf(part, g.ndim, p))
        try:
            with jax.named_scope(rule.name), promotion(g, slots, p):
                told = rule.role(role, g.ndim + len(stack)) if rule.uses_role else {}
                if rule.whole and part is not None and part.names:
                    return on_whole(rule, part, (g, slots, p, t, *common), told, run, cuts)
                return run(rule, (g, slots, p, t, *common), told)
        finally:
            LEAF.reset(token)

    if not stack:
        return on_one(values, g, slots, p, common), stack
    slots = slots_of(slots, stack, g.shape)
    return over_stack(on_one, stack, g.shape, values, cut(g, stack), slots, cut(p, stack), common), stack


def _kernels(source: RuleSource) -> Kernels:
    """The compiled functions of a rule. The hyperparameters that move are arguments of them."""

    def measure(values: dict, g: Any, slots: Any, p: Any, count: Any, memory: Any) -> Any:
        def measured(rule: Rule, arguments: tuple, told: dict) -> Any:
            return jax.tree.map(jnp.asarray, rule.measure(*arguments, **told))  # type: ignore[misc]  # rules that measure

        known = () if memory is None else (memory,)
        scalars, stack = _on_one_leaf(source, values, g, slots, p, count, known, measured, cuts=False)
        scalars = jax.tree.map(lambda x: jnp.sum(x, axis=tuple(range(len(stack)))), scalars) if stack else scalars
        return widen_floats(scalars, jnp.result_type(float))  # to be summed over leaves

    def shared(values: dict, count: Any, total: Any, memory: Any, extra: dict) -> Any:
        default = jnp.result_type(float)
        t, values = widen((count, values), default)
        total, known, extra = widen_floats((total, memory, extra), default)
        rule = source.at(values)
        if memory is None:
            found = rule.shared(t, total, **extra)  # type: ignore[misc]  # only called for rules that share
            return jax.tree.map(jnp.asarray, found), None  # as jit does, for jax.disable_jit
        common, new = rule.shared(t, total, known, **extra)  # type: ignore[misc]
        return jax.tree.map(jnp.asarray, common), jax.tree.map(_stored, new, memory)

    def matrices(values: dict, bucket: Bucket, count: Any, common: tuple) -> list[tuple]:
        us, rows = update_matrices(source.at, values, bucket, count, common)
        names = source.at(values).slots

        def kept(new: list, old: list) -> list:
            if any([x.dtype == jnp.float16 for x in jax.tree.leaves(old)]):
                new = [_ending((name,), n, widen(o), o) for name, n, o in zip(names, new, old, strict=True)]
            return jax.tree.map(_stored, new, old)

        new = map(kept, rows, bucket.slots)
        return [(u, slots[0] if len(slots) == 1 else tuple(slots)) for u, slots in zip(us, new, strict=True)]

    return Kernels(called_on_leaves(measure, at=1), compiled_outside(shared), jax.jit(matrices))


shared_kernels = functools.lru_cache(maxsize=1024)(_kernels)


def forget() -> None:
    """Lets go of all compiled functions that are kept for rules with equal keys."""
    shared_kernels.cache_clear()
    shared_updates.cache_clear()


def _ending(names: tuple[str, ...], new: Any, old: Any, kept: Any) -> Any:
    """The new slots of a rule, of which those kept in float16 can become 0; see `ending`.

    Second moments stay as they are: if they became 0 before the first moment does, the step would have no limit.
    """

    def one(name: str, new: Any, old: Any, kept: Any) -> Any:
        return new if name == "nu" else jax.tree.map(lambda n, o, k: ending(n, o, k.dtype), new, old, kept)

    return one(names[0], new, old, kept) if len(names) == 1 else tuple(map(one, names, new, old, kept))


def _stored(new: Any, old: jax.Array) -> jax.Array:
    if jnp.shape(new) != jnp.shape(old):
        raise ValueError(f"the state was made for another shape: {jnp.shape(old)}, updated {jnp.shape(new)}")
    return jnp.asarray(new).astype(old.dtype)


def _kind(x: Any) -> str:
    return f"{len(x)} of them" if type(x) is tuple else "a tree" if isinstance(x, tuple | list | dict) else "one array"
