# SPDX-License-Identifier: Apache-2.0
"""What a transformation consists of and what it remembers, without running it."""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator
from typing import Any

import jax

from gradtx.core.call import Value
from gradtx.core.transformation import GradientTransformation, check_transformation, is_transformation
from gradtx.inspect.slots import parameter_names, split

Keys = tuple[int | str, ...]

WIDTH = 120
"""Columns of the printed table."""
ROWS_PER_SLOT = 20
"""Rows of the printed table for each slot; the rest is one line."""
LIMITS = (12, 22, 32)
"""The widest that the columns of names in the table get; numbers are never cut."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """One transformation: where its state lies, how deep it is nested, and its call as text.

    `label` is the argument that holds it, for the transformations inside a wrapper, whose state is the wrapper's.
    """

    path: Keys
    depth: int
    call: str
    label: str = ""


@dataclasses.dataclass(frozen=True)
class Slot:
    """One array of the state. `parameter` is empty and `bytes_per_element` None for what belongs to no parameter."""

    stage: Keys
    field: str
    parameter: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    bytes_per_element: float | None


@dataclasses.dataclass(frozen=True)
class Description:
    """The stages of a transformation and the arrays of its state; `print` shows both as a table."""

    stages: tuple[Stage, ...]
    slots: tuple[Slot, ...]
    parameter_elements: int

    @property
    def state_bytes(self) -> int:
        return sum(slot.bytes for slot in self.slots)

    @property
    def bytes_per_element(self) -> float | None:
        """Bytes of state for each element of the parameters; None if there are none."""
        return self.state_bytes / self.parameter_elements if self.parameter_elements else None

    def to_dict(self) -> dict[str, Any]:
        """Everything as dictionaries, lists, strings and numbers."""
        return {
            "stages": [{**dataclasses.asdict(s), "path": list(s.path)} for s in self.stages],
            "slots": [{**dataclasses.asdict(s), "stage": list(s.stage), "shape": list(s.shape)} for s in self.slots],
            "parameter_elements": self.parameter_elements,
            "state_bytes": self.state_bytes,
            "bytes_per_element": self.bytes_per_element,
        }

    def __str__(self) -> str:
        lines = [*_stage_lines(self.stages), ""]
        if self.slots:
            lines += [*_slot_lines(self.slots), ""]
        total = f"{self.state_bytes:,} bytes of state for {self.parameter_elements:,} parameter elements"
        each = self.bytes_per_element
        return "\n".join([*lines, total if each is None else f"{total}: {each:.4g} each"])


def describe(tx: Any, params: Any) -> Description:
    """The stages of a transformation and every array of its state, by parameter, with dtype and bytes.

    Recipes and chains are opened; a wrapper is one stage, under which the transformations among its arguments are
    named. Nothing is allocated. An array of the state belongs to a parameter if it lies in a part of the state that
    has the parameters' structure.

    Args:
      tx: any object with `init` and `update`; one that gradtx did not make is one stage.
      params: a tree of arrays or of `jax.ShapeDtypeStruct`.
    """
    check_transformation("describe: tx", tx)
    abstract = jax.eval_shape(lambda p: p, params)
    state = jax.eval_shape(tx.init, abstract)
    stages, slots = [], []
    for stage, part in _walk(tx, state, (), 0):
        stages.append(stage)
        slots += [] if part is None else _slots(stage.path, part, abstract)
    elements = sum(math.prod(p.shape) for p in jax.tree.leaves(abstract))
    return Description(tuple(stages), tuple(slots), elements)


def _walk(tx: Any, state: Any, path: Keys, depth: int, label: str = "") -> Iterator[tuple[Stage, Any]]:
    """The stages with their states; the state is None where another stage shows it."""
    opened = tx.expanded if isinstance(tx, GradientTransformation) else tx
    children = _chained(opened)
    if children is not None:
        call = _call(tx)
        if opened is tx:  # the lines below say what is in it
            call = call.partition("(")[0] + ("(...)" if children else "()")
        yield Stage(path, depth, call, label), None
        for key, child in children:
            if state is None:  # inside a wrapper, whose row shows the state
                yield from _walk(child, None, path, depth + 1, str(key))
            else:
                yield from _walk(child, state[key], (*path, key), depth + 1)
    elif opened is not tx:
        yield Stage(path, depth, _call(tx), label), None
        yield from _walk(opened, state, path, depth + 1)
    else:
        yield Stage(path, depth, _call(tx), label), state
        for name, child in _nested(tx):
            yield from _walk(child, None, path, depth + 1, name)


def _chained(tx: Any) -> list[tuple[int | str, Any]] | None:
    """The stages of a chain with their keys in its state; None for everything else."""
    factory = tx.factory if isinstance(tx, Value) else None
    name = "" if factory is None else factory.name
    if name == "chain":
        return list(enumerate(tx.arguments["transformations"]))
    if name == "named_chain":
        return [(key, child) for key, child in tx.arguments["transformations"]]
    return None


def _nested(tx: Any) -> list[tuple[str, Any]]:
    """The transformations among a wrapper's arguments, with the place where they stand as text."""
    arguments = dict(tx.arguments) if isinstance(tx, Value) else {}
    found = jax.tree_util.tree_flatten_with_path(arguments, is_leaf=is_transformation)[0]
    return [(_name(path), x) for path, x in found if is_transformation(x)]


def _call(tx: Any) -> str:
    # The addresses of functions say nothing and differ from run to run.
    return re.sub(r" at 0x[0-9a-f]+", "", repr(tx))


def _slots(stage: Keys, state: Any, params: Any) -> list[Slot]:
    """A row for each array of a state, by field and then by parameter."""
    called, rows = parameter_names(params), []
    shapes = dict(jax.tree_util.tree_flatten_with_path(params)[0])
    for path, group in itertools.groupby(split(state, params), key=lambda part: (*part.stage, *part.field)):
        begin = len(rows)
        for part in group:
            owner = part.parameter
            elements = 0 if owner is None else math.prod(shapes[owner].shape)
            for rest, x in jax.tree_util.tree_flatten_with_path(part.value)[0]:
                field = _name(path) + jax.tree_util.keystr(rest)
                size = math.prod(x.shape) * x.dtype.itemsize
                each = size / elements if elements else None
                parameter = "" if owner is None else called[owner] or "(root)"
                rows.append(Slot(stage, field or "state", parameter, tuple(x.shape), str(x.dtype), size, each))
        # Several arrays for one parameter (a codec's, factors) are fields of their own.
        order = list(dict.fromkeys(r.field for r in rows[begin:]))
        rows[begin:] = sorted(rows[begin:], key=lambda r: order.index(r.field))
    return rows


def _name(path: Any) -> str:
    """A path in a state as text: `mu`, `inner_state.mu`, `[0].mu`."""
    text = ""
    for key in path:
        if isinstance(key, jax.tree_util.GetAttrKey):
            text += f".{key.name}"
        elif isinstance(key, jax.tree_util.DictKey) and isinstance(key.key, str):
            text += f".{key.key}"
        else:
            text += jax.tree_util.keystr((key,))
    return text.removeprefix(".")


def _place(path: Keys) -> str:
    return ".".join(map(str, path))


def _stage_lines(stages: tuple[Stage, ...]) -> list[str]:
    lines, last = [], ()
    for stage in stages:
        name = stage.label or (_place(stage.path) if stage.path != last else "")
        lines.append(_cut("  " * stage.depth + (f"{name}: " if name else "") + stage.call, WIDTH))
        last = stage.path
    return lines


def _slot_lines(slots: tuple[Slot, ...]) -> list[str]:
    rows = [("stage", "slot", "parameter", "shape", "dtype", "bytes", "per element")]
    for (stage, field), group in itertools.groupby(slots, key=lambda s: (s.stage, s.field)):
        group = list(group)
        # Hiding a single row would save nothing.
        shown = len(group) if len(group) <= ROWS_PER_SLOT + 1 else ROWS_PER_SLOT
        for s in group[:shown]:
            each = "" if s.bytes_per_element is None else f"{s.bytes_per_element:.4g}"
            rows.append((_place(stage), field, s.parameter, str(s.shape), s.dtype, f"{s.bytes:,}", each))
        if rest := group[shown:]:
            size = f"{sum(s.bytes for s in rest):,}"
            rows.append((_place(stage), field, f"... and {len(rest):,} more", "", "", size, ""))
    cells = [[*map(_cut, row, LIMITS), *row[len(LIMITS) :]] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        padded = [c.rjust(w) if i >= 5 else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(padded).rstrip())
    return lines


def _cut(text: str, limit: int) -> str:
    """The text, or its beginning and end if it is too long."""
    if len(text) <= limit:
        return text
    end = (limit - 3) // 2
    return f"{text[: limit - 3 - end]}...{text[-end:]}"
