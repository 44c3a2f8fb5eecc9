# SPDX-License-Identifier: Apache-2.0
"""What one step does, stage by stage."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradtx.core._borders import narrowed
from gradtx.core._checked import checked
from gradtx.core._kinds import StateTree, Tree
from gradtx.core._roles import opened
from gradtx.core._selectors import Where, check_found, check_where, described, is_carrier, matches, named_leaves
from gradtx.core._sentences import listed
from gradtx.core._transformation import Transformation
from gradtx.core._trees import is_hole, shapes_of, show_path
from gradtx.core._types import Params
from gradtx.core._unwrapping import unwrapped
from gradtx.describing._fate import role_of
from gradtx.describing._measures import Measures, Measuring, lost, norm, not_finite, wide
from gradtx.describing._probing import Watch, values
from gradtx.describing._routes import RouteNode, route
from gradtx.describing._table import TableCells, as_html, as_rich, as_text
from gradtx.describing._update_table import parameter_cells, stage_cells, summary


@dataclasses.dataclass(frozen=True)
class StageUpdate:
    """What one transformation did in a step, over the chosen parameters; None for what has no meaning there.

    Attributes:
      path: the steps to it: the numbers or names of stages, the arguments of wrappers; () for the whole.
      call: its call as text, or its name inside of `groups`.
      ran: whether it ran: a wrapper may skip it. Else all numbers are None; of several runs, they are of the last.
      norm_in, norm_out: the norms of the updates that it got and of those that it returned.
      cosine: of the angle between what it returned and the gradient of the step; about -1 for plain descent.
      changed: the share of the elements that it changed.
      clipped: of a stage that clips, the share of the elements that it made smaller.
      masked: the share of the elements that it did not see.
      decayed: the share of the elements that it saw to which weight decay is applied.
      lost: the share of the nonzero updates that would not change a parameter of its dtype, were they added now.
      not_finite: the number of elements that it returned as NaN or infinity.
    """

    path: tuple[str, ...]
    depth: int
    call: str
    ran: bool
    norm_in: float | None = None
    norm_out: float | None = None
    cosine: float | None = None
    changed: float | None = None
    clipped: float | None = None
    masked: float | None = None
    decayed: float | None = None
    lost: float | None = None
    not_finite: int | None = None


@dataclasses.dataclass(frozen=True)
class ParameterUpdate:
    """The step of one parameter: norms of gradient, update and parameter, and the update relative to the parameter.

    `relative` is None for a parameter of zeros; `lost` and `not_finite` are as in `StageUpdate`, of the whole step.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    gradient: float
    update: float
    parameter: float
    relative: float | None
    lost: float | None
    not_finite: int


@dataclasses.dataclass(frozen=True)
class UpdateExplanation:
    """What `explain_update` finds. `print` shows a table of the stages and one of the parameters that moved most.

    Attributes:
      rows: the stages in order, the first of them the whole; below a recipe or wrapper, what is inside.
      parameters: the chosen parameters that have a gradient, those whose update is largest relative to them first.
      chosen: what `path` was, as text; empty for all parameters.
      total: the number of parameters with a gradient.
    """

    rows: tuple[StageUpdate, ...]
    parameters: tuple[ParameterUpdate, ...]
    chosen: str
    total: int

    def to_dict(self) -> dict[str, Any]:
        """Everything as dictionaries, lists, strings and numbers."""
        found = dataclasses.asdict(self)
        for row in (*found["rows"], *found["parameters"]):
            row |= {name: list(x) for name, x in row.items() if isinstance(x, tuple)}
        return {name: list(x) if isinstance(x, tuple) else x for name, x in found.items()}

    def __str__(self) -> str:
        stages, parameters = self._tables()
        return "\n".join([summary(self), "", *as_text(stages), "", *as_text(parameters)])

    def __rich__(self) -> Any:
        stages, parameters = self._tables()
        return as_rich([summary(self)], stages, "", parameters)

    def _repr_html_(self) -> str:
        return as_html([summary(self)], *self._tables())

    def _tables(self) -> tuple[TableCells, TableCells]:
        return stage_cells(self.rows), parameter_cells(self.parameters)


@checked
def explain_update(
    tx: Transformation, grads: Tree, state: StateTree, params: Tree, path: Where | None = None, **extra: Any
) -> UpdateExplanation:
    """What the step `tx.update(grads, state, params)` does, stage by stage: norms, the angle to the gradient, and the
    shares of elements that are changed, clipped, masked, decayed and lost to rounding.

    The step is computed, outside of `jit`, and thrown away: nothing is changed. What a wrapper skips did not run, such
    as the optimizer in `MultiSteps` where a call only accumulates. Inside `flatten` and the like, where no element
    belongs to a parameter, there are norms only.

    Args:
      tx: any object with `init` and `update`; one that gradtx did not make is one stage.
      grads, state, params: of the step, such as those of a checkpoint and a batch.
      path: the parameters to measure, as in `where`: a path or glob, a regular expression, a predicate,
        `of_kind(...)`, `where(...)` or a tuple of these; None for all. Stages see all parameters nevertheless.
      extra: keyword arguments of `update`, such as `value`.

    Raises:
      TypeError: inside of `jit`, where there are no values to measure.
      ValueError: for a path that no parameter has, with the closest ones.
    """
    _check_values({"tx": tx, "grads": grads, "state": state, "params": params})
    if not _carriers(state) <= _carriers(params):  # an nnx.Optimizer has variables of its own around the state
        grads, state, params = map(unwrapped, (grads, state, params))
    root = route(tx, shapes_of("explain_update", params))
    ps, gs = _by_name(params), values(grads)
    if lacking := [name for name in gs if name not in ps]:
        raise ValueError(f"explain_update: params lack what grads have: {listed(lacking)}")
    chosen = set(gs) if path is None else _chosen(path, root, params, ps) & set(gs)
    measuring = Measuring(gs, ps, chosen)
    watch = Watch(measuring)
    new, after = watch.watched(root).update(grads, state, params, **extra)
    # What leaves the outermost transformation has the dtype of its caller.
    final = values(narrowed(new, grads, params, after, getattr(tx, "parts", None)))
    watch.found[()].measures = measuring(root, gs, final)
    rows = tuple(StageUpdate(*_row(steps, x.text, x.measures)) for steps, x in watch.found.items())
    parameters = [_parameter(name, ps[name], gs[name], final.get(name)) for name in gs if name in chosen]
    parameters.sort(key=lambda row: -_size(row))
    return UpdateExplanation(rows, tuple(parameters), "" if path is None else described(path), len(gs))


def _row(steps: tuple[str, ...], text: str, found: Measures | None) -> tuple:
    return (steps, len(steps), text, found is not None, *(() if found is None else dataclasses.astuple(found)))


def _size(row: ParameterUpdate) -> float:
    """Where a parameter stands in the table: what is not finite comes first; one of zeros counts as one of norm 1."""
    if not math.isfinite(row.update):
        return math.inf
    return row.update if row.relative is None else row.relative


def _parameter(name: str, p: Any, g: Any, u: Any) -> ParameterUpdate:
    update, own = (0.0 if x is None else norm([wide(x)]) for x in (u, p))
    losing, moved = (0, 0) if u is None else lost(p, u)
    return ParameterUpdate(
        name or "(root)",
        tuple(jnp.shape(p)),
        str(jnp.result_type(p)),
        norm([wide(g)]),
        update,
        own,
        update / own if own else None,
        losing / moved if moved else None,
        0 if u is None else not_finite([wide(u)]),
    )


def _carriers(tree: Any) -> set[type]:
    return {type(x) for x in jax.tree.leaves(tree, is_leaf=is_carrier) if is_carrier(x)}


def _by_name(params: Params) -> dict[str, Any]:
    names, leaves, _ = named_leaves(params)
    return {name: opened(x) for name, x in zip(names, leaves, strict=True) if not is_hole(x)}


def _chosen(path: Where, root: RouteNode, params: Params, ps: dict[str, Any]) -> set[str]:
    if isinstance(path, str) and path in ps:
        return {path}
    if isinstance(path, str) and path == "(root)" and set(ps) == {""}:
        return {""}
    chosen = check_where("explain_update: path", path)
    check_found(f"explain_update: path {described(chosen)}", chosen, params, list(ps))
    return {name for name, p in ps.items() if matches(chosen, name, p, role_of(root, name))}


def _check_values(given: dict[str, Any]) -> None:
    for name, tree in given.items():
        for path, x in jax.tree_util.tree_leaves_with_path(tree):
            if isinstance(x, Tracer):
                raise TypeError(
                    f"explain_update: {name} is traced at {show_path(path)} and has no values to measure: call it "
                    f"outside of jit, grad and vmap; record_metrics records numbers of each step inside of them"
                )
