# SPDX-License-Identifier: Apache-2.0
"""What happens to each parameter, and the state that is kept for it, found without running anything."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import NamedSharding

from gradtx._groups._planning import FROZEN
from gradtx.core._checked import checked
from gradtx.core._roles import Role
from gradtx.core._sentences import listed
from gradtx.core._transformation import check_transformation
from gradtx.core._trees import shapes_of
from gradtx.core._types import OptState, Params
from gradtx.core._unwrapping import unwrapped
from gradtx.describing._fate import Multiple, decays, multiple_of, role_of, rule_of
from gradtx.describing._routes import RouteNode, route
from gradtx.describing._stages import Slot, Stage, sharding_of, slot_rows, walk
from gradtx.describing._table import TableCells, as_html, as_rich, as_text, parameter_lines, stage_lines
from gradtx.sharding._layout import layout_of
from gradtx.sharding._state_shardings import LARGE, nbytes, state_types
from gradtx.surgery._slots import parameter_names


@dataclasses.dataclass(frozen=True)
class ParameterRow:
    """What happens to one parameter.

    Attributes:
      role: None outside of `with_roles`.
      rule: the optimizer, stage or label that updates it, "frozen", or None if no transformation sees it.
      learning_rate, weight_decay: as multiples of the values of the base of `groups`; for a stack whose parameters
        differ, the least and the greatest; "own" for another schedule. None without a rule or without weight decay.
      slots: the name and dtype of each array of state that belongs to it.
      sharding: as in `Slot`, of the parameter, and of its state where that differs.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    role: Role | None
    rule: str | None
    learning_rate: Multiple | None
    weight_decay: Multiple | None
    slots: tuple[tuple[str, str], ...]
    state_bytes: int
    sharding: str = ""


@dataclasses.dataclass(frozen=True)
class Description:
    """What `describe` finds. `print` shows the stages, a table of the parameters and the totals.

    In the table, parameters that differ only in a number in their paths are one row, as `h/*/kernel x12`.

    Attributes:
      idle: the transformations inside wrappers that see no parameter, such as those of labels that none has.
      gathering: those inside `over_axes` that gather the parameters that they see, as matrix rules do.
    """

    stages: tuple[Stage, ...]
    parameters: tuple[ParameterRow, ...]
    slots: tuple[Slot, ...]
    parameter_elements: int
    idle: tuple[str, ...] = ()
    gathering: tuple[str, ...] = ()

    @property
    def state_bytes(self) -> int:
        return sum(slot.bytes for slot in self.slots)

    @property
    def bytes_per_element(self) -> float | None:
        """Bytes of state for each element of the parameters; None if there are none."""
        return self.state_bytes / self.parameter_elements if self.parameter_elements else None

    def to_dict(self) -> dict[str, Any]:
        """Everything as dictionaries, lists, strings and numbers."""
        found = dataclasses.asdict(self)
        totals = {"state_bytes": self.state_bytes, "bytes_per_element": self.bytes_per_element}
        return plain({**found, **totals})

    def __str__(self) -> str:
        lines = ["", *as_text(self._table()), ""] if self.parameters or self.slots else [""]
        return "\n".join([*stage_lines(self.stages), *lines, self._total()])

    def __rich__(self) -> Any:
        return as_rich(stage_lines(self.stages), self._table(), self._total())

    def _repr_html_(self) -> str:
        return as_html([*stage_lines(self.stages), "", self._total()], self._table())

    def _table(self) -> TableCells:
        return parameter_lines(self.parameters, [slot for slot in self.slots if not slot.parameter])

    def _total(self) -> str:
        total = f"{self.state_bytes:,} bytes of state for {self.parameter_elements:,} parameter elements"
        each = self.bytes_per_element
        total = total if each is None else f"{total}: {each:.4g} each"
        notes = ("no parameter for", self.idle), ("parameters are gathered for", self.gathering)
        return "\n".join([total, *(f"{note} {listed(names)}" for note, names in notes if names)])


@checked
def describe(tx: Any, params: Params, state: OptState | None = None) -> Description:
    """What happens to each parameter: its role, the rule that updates it, multiples of the learning rate and the weight
    decay, the arrays of its state with their dtypes and bytes, and how they are sharded.

    Nothing is allocated. An array of the state belongs to a parameter if it lies in a part of the state that has the
    parameters' structure. Recipes and chains are listed stage by stage; a wrapper is one stage, with the
    transformations among its arguments listed below it.

    Args:
      tx: any object with `init` and `update`; one that gradtx did not make is one stage, which sees all parameters.
      params: a tree of arrays or of `jax.ShapeDtypeStruct`.
      state: a state of `tx` for these parameters, to read its shardings; None for the types of `tx.init(params)` and,
        where the parameters have `NamedSharding`s, its `state_shardings`.

    Raises:
      ValueError: for a state of another transformation.
    """
    return described_by("describe", tx, params, state)[0]


def described_by(where: str, tx: Any, params: Params, state: OptState | None) -> tuple[Description, RouteNode]:
    """The description, and which transformations see which parameters."""
    check_transformation(f"{where}: tx", tx)
    shapes = shapes_of(where, params)
    held = _held(where, tx, params, shapes, state)
    stages, slots = [], []
    for stage, part in walk(tx, held):
        stages.append(stage)
        slots += [] if part is None else slot_rows(stage.path, part, shapes)
    root = route(tx, shapes)
    rows = _rows(root, params, shapes, slots)
    elements = sum(math.prod(p.shape) for p in jax.tree.leaves(shapes))
    gathering = tuple(dict.fromkeys(_gathering(root)))
    return Description(tuple(stages), tuple(rows), tuple(slots), elements, tuple(_idle(root)), gathering), root


def _idle(node: RouteNode) -> Iterator[str]:
    """The names of the transformations in a node that see nothing of what it sees."""
    for child in node.children if node.seen else ():
        yield from _idle(child) if child.seen else [child.name]


def _gathering(node: RouteNode, split: bool = False) -> Iterator[str]:
    """The names of the transformations inside `over_axes` that gather the parameters that they see."""
    split |= node.factory == "over_axes"
    if split and node.seen and getattr(node.tx, "gathers", False):
        yield node.factory or node.name
    for child in node.children:
        yield from _gathering(child, split)


def _held(where: str, tx: Any, params: Params, shapes: Any, state: OptState | None) -> OptState:
    """The given state, or the types of the state of `init`, with shardings if the parameters have some."""
    sharded = any(isinstance(getattr(x, "sharding", None), NamedSharding) for x in jax.tree.leaves(params))
    if sharded:
        first = jax.tree.map(_worth_telling, state_types(tx, layout_of(where, params)))
    else:
        first = jax.eval_shape(tx.init, shapes)
    if state is not None and jax.tree.structure(unwrapped(state)) != jax.tree.structure(unwrapped(first)):
        raise ValueError(
            f"{where}: this is not a state of tx for these parameters; migrate(state, tx, params) makes one"
        )
    return first if state is None else state


def _worth_telling(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """The array as it is shown: a small one that is whole on each device without its sharding."""
    small = x.sharding.is_fully_replicated and nbytes(x) < LARGE
    return jax.ShapeDtypeStruct(x.shape, x.dtype) if small else x


def _rows(root: RouteNode, params: Params, shapes: Any, slots: list[Slot]) -> list[ParameterRow]:
    names = parameter_names(shapes)
    given = dict(jax.tree_util.tree_leaves_with_path(unwrapped(params)))
    held: dict[str, list[Slot]] = {}
    for slot in slots:
        held.setdefault(slot.parameter, []).append(slot)
    return [
        _row(root, names[path], x, given[path], held.get(names[path] or "(root)", []))
        for path, x in jax.tree_util.tree_leaves_with_path(unwrapped(shapes))
    ]


def _row(root: RouteNode, path: str, shape: Any, given: Any, slots: list[Slot]) -> ParameterRow:
    rule = rule_of(root, path)
    runs = rule not in (None, FROZEN)
    decay = multiple_of(root, path, "weight_decay") if runs and decays(root, path) else None
    return ParameterRow(
        path or "(root)",
        tuple(shape.shape),
        str(shape.dtype),
        role_of(root, path),
        rule,
        multiple_of(root, path, "learning_rate") if runs else None,
        decay or None,
        tuple((slot.name, slot.dtype) for slot in slots),
        sum(slot.bytes for slot in slots),
        _sharding(given, slots),
    )


def _sharding(given: Any, slots: list[Slot]) -> str:
    own = sharding_of(given)
    others = dict.fromkeys(slot.sharding for slot in slots if slot.sharding not in ("", own))
    return ", ".join([own or "-", *(f"state {x}" for x in others)]) if others else own


def plain(x: Any) -> Any:
    """Tuples as lists."""
    if isinstance(x, dict):
        return {name: plain(value) for name, value in x.items()}
    return [plain(value) for value in x] if isinstance(x, tuple | list) else x
