# SPDX-License-Identifier: Apache-2.0
"""Why one parameter is updated as it is."""

import dataclasses
import re
import textwrap
from typing import Any

from gradtx._groups._planning import FROZEN
from gradtx.core._checked import checked
from gradtx.core._prefixes import is_function
from gradtx.core._roles import Role
from gradtx.core._selectors import described, known_paths
from gradtx.core._types import OptState, Params
from gradtx.describing._describe import ParameterRow, described_by, plain
from gradtx.describing._fate import OWN, Multiple, is_made_by, label_of, numbers_of, stage_name
from gradtx.describing._folding import spanned
from gradtx.describing._numbers import number_text
from gradtx.describing._reasons import overrides, role_source
from gradtx.describing._routes import RouteNode
from gradtx.describing._stages import Slot
from gradtx.describing._table import WIDTH
from gradtx.wrappers._masked import masked
from gradtx.wrappers._partition import partition

_SILENT = ("chain", "named_chain", "with_roles", "groups", "partition", "masked")
"""Factories of transformations that run others and change no number themselves."""


@dataclasses.dataclass(frozen=True)
class StageNumbers:
    """A stage that a parameter goes through, with its hyperparameters there as text; schedules at step 0.

    `depth` is the number of wrappers around it. `sums_over` is, for a stage that sums over all parameters, the number
    of parameters in the sums and the number of all; None for other stages.
    """

    name: str
    numbers: dict[str, str]
    depth: int = 0
    sums_over: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What `explain_path` finds; `print` shows it.

    Attributes:
      parameter: the row of the parameter in `describe`.
      role_source: which rule gave the role, or which function guessed it; empty without a role.
      logical_shape: the shape that rules see: that of one parameter of a stack.
      choices: what groups, labels and masks choose for it, a sentence each.
      stages: the stages that it goes through, in order.
      slots: the arrays of state that belong to it.
    """

    parameter: ParameterRow
    role_source: str
    logical_shape: tuple[int, ...]
    choices: tuple[str, ...]
    stages: tuple[StageNumbers, ...]
    slots: tuple[Slot, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything as dictionaries, lists, strings and numbers."""
        return plain(dataclasses.asdict(self))

    def __str__(self) -> str:
        p = self.parameter
        lines = [f"{p.path}: {p.shape} {p.dtype}" + (f", {p.sharding}" if p.sharding else "")]
        if p.role is not None:
            lines.append(f"role: {p.role!r}, {self.role_source}")
        if self.logical_shape != p.shape:
            lines.append(f"stack: rules run on parameters of shape {self.logical_shape}")
        lines.append(f"rule: {_rule(p)}")
        lines += ["choices:", *(f"  {choice}" for choice in self.choices)] if self.choices else []
        none = "none, its update is None" if p.rule == FROZEN else "none, its gradient passes as it is"
        lines += ["stages:", *map(_stage_line, self.stages)] if self.stages else [f"stages: {none}"]
        lines += ["state:", *_slot_lines(self.slots)] if self.slots else ["state: none"]
        return "\n".join(piece for line in lines for piece in _wrapped(line))


@checked
def explain_path(tx: Any, params: Params, path: str, state: OptState | None = None) -> Explanation:
    """Why the parameter at a path is updated as it is: which rules gave it its role and group, what groups change,
    which labels and masks choose it, the stages that it goes through with their numbers for it, and its state.

    Args:
      tx, params, state: as in `describe`.
      path: such as "layers/0/kernel"; "" if the parameters are one array.

    Raises:
      ValueError: for a path without a parameter, with the closest paths.
    """
    description, root = described_by("explain_path", tx, params, state)
    row = next((row for row in description.parameters if row.path == (path or "(root)")), None)
    if row is None:
        known = known_paths(path, [row.path for row in description.parameters])
        raise ValueError(f"explain_path: there is no parameter at {path!r}; {known}")
    name = "" if row.path == "(root)" and "(root)" not in root.seen else row.path
    left = _logical_shape(row.role, row.shape)
    source = "" if row.role is None else role_source(root, name)
    slots = tuple(slot for slot in description.slots if slot.parameter == row.path)
    return Explanation(
        row, source, left, tuple(_choices(root, name)), tuple(_stages(root, name, len(root.seen))), slots
    )


def _logical_shape(role: Role | None, shape: tuple[int, ...]) -> tuple[int, ...]:
    stack = () if role is None else role.fitted(len(shape)).stack
    return tuple(n for axis, n in enumerate(shape) if axis not in stack)


def _choices(node: RouteNode, path: str, of_groups: bool = False) -> list[str]:
    """What groups, labels and masks choose for a parameter, from the outside in."""
    if path not in node.seen:
        return []
    said = []
    if node.plan is not None:
        said += overrides(node, path)
    elif is_made_by(node, partition) and not of_groups:
        label, given = label_of(node, path)[0], node.tx.arguments
        there = ", ".join(map(repr, given["transforms"]))
        said.append(f"partition: its label is {label!r}, out of {there}, by {_source(given['param_labels'])}")
    elif is_made_by(node, masked):
        inner = node.children[0]
        effect = "sees it" if path in inner.seen else "does not see it"
        said.append(f"masked: {stage_name(inner)} {effect}, by {_source(node.tx.arguments['mask'])}")
    elif not is_made_by(node, partition):
        hidden = [child for child in node.children if path not in child.seen]
        said += [f"{stage_name(node)}: {child.name or stage_name(child)} does not see it" for child in hidden]
    below = node.plan is not None
    return said + [sentence for child in node.children for sentence in _choices(child, path, below)]


def _source(prefix: Any) -> str:
    return described(prefix) if is_function(prefix) else "a tree"


def _stages(node: RouteNode, path: str, total: int, depth: int = 0) -> list[StageNumbers]:
    if path not in node.seen:
        return []
    # A recipe of a single stage, such as scale_by_lr, is shown by its own name and arguments, not by the stage's.
    last = node.children[0] if node.is_recipe and not node.children[0].children else node
    if node.factory in _SILENT or node.is_recipe and last is node:
        return [stage for child in node.children for stage in _stages(child, path, total, depth)]
    rule = getattr(last.tx, "rule", None)
    numbers = {n: number_text(x) for n, x in numbers_of(node, path).items()}
    sums = (len(node.seen), total) if rule is not None and rule.measure is not None else None
    inside = [] if last is not node else node.children
    found = [stage for child in inside for stage in _stages(child, path, total, depth + 1)]
    return [StageNumbers(stage_name(node), numbers, depth, sums), *found]


def _rule(p: ParameterRow) -> str:
    if p.learning_rate is None:
        return p.rule or "none"
    decay = "no weight decay" if p.weight_decay is None else f"weight decay {_multiple(p.weight_decay)}"
    return f"{p.rule}, learning rate {_multiple(p.learning_rate)}, {decay}"


def _multiple(x: Multiple) -> str:
    return "of its own" if x == OWN else spanned([x])


def _stage_line(stage: StageNumbers) -> str:
    numbers = ", ".join(f"{name} {value}" for name, value in stage.numbers.items())
    sums = "" if stage.sums_over is None else " (sums over {} of {} parameters)".format(*stage.sums_over)
    return "  " * (stage.depth + 1) + stage.name + (f": {numbers}" if numbers else "") + sums


def _slot_lines(slots: tuple[Slot, ...]) -> list[str]:
    # Names in the form that `get_slot` takes: inner_state.0.mu for inner_state[0].mu.
    names = [re.sub(r"\.?\[['\"]?(.*?)['\"]?\]", r".\1", ".".join(map(str, [*s.stage, s.field]))) for s in slots]
    names = [name.removeprefix(".") for name in names]
    wide = max(map(len, names))
    return [
        f"  {name:{wide}}  {s.shape} {s.dtype}, {s.bytes:,} bytes" + (f", {s.sharding}" if s.sharding else "")
        for name, s in zip(names, slots, strict=True)
    ]


def _wrapped(line: str) -> list[str]:
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    return textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
