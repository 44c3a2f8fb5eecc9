# SPDX-License-Identifier: Apache-2.0
"""The stages of a transformation, and the arrays of its state by stage."""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator
from typing import Any

import jax

from gradtx.core._calls import Value
from gradtx.core._nesting import chained, inside
from gradtx.core._transformation import GradientTransformation
from gradtx.core._unwrapping import unwrapped
from gradtx.sharding._layout import spec_text
from gradtx.surgery._slots import parameter_names, split

Keys = tuple[int | str, ...]


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
    """One array of the state. If it belongs to no parameter, `parameter` is empty and `bytes_per_element` None.

    `field` is the path in the state of the stage, `name` its end, from the named tuple that has the slot. `sharding` is
    empty if no state was given, and for arrays on one device.
    """

    stage: Keys
    field: str
    parameter: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    bytes_per_element: float | None
    name: str = ""
    sharding: str = ""


def walk(tx: Any, state: Any, path: Keys = (), depth: int = 0, label: str = "") -> Iterator[tuple[Stage, Any]]:
    """The stages with their states; the state is None if another stage shows it."""
    opened = tx.expanded if isinstance(tx, GradientTransformation) else tx
    children = chained(opened)
    if children is not None:
        call = called(tx)
        if opened is tx:  # the lines below say what is in it
            call = call.partition("(")[0] + ("(...)" if children else "()")
        yield Stage(path, depth, call, label), None
        for key, child in children:
            if state is None:  # inside a wrapper, whose row shows the state
                yield from walk(child, None, path, depth + 1, str(key))
            else:
                yield from walk(child, state[key], (*path, key), depth + 1)
    elif opened is not tx:
        yield Stage(path, depth, called(tx), label), None
        yield from walk(opened, state, path, depth + 1)
    else:
        yield Stage(path, depth, called(tx), label), state
        for name, child in nested(tx):
            yield from walk(child, None, path, depth + 1, name)


def nested(tx: Any) -> list[tuple[str, Any]]:
    """The transformations among a wrapper's arguments, with the place where they stand as text."""
    found = inside(tx.arguments) if isinstance(tx, Value) else ()
    return [(_name(path), child) for path, child in found]


def called(tx: Any) -> str:
    """The call as text, without the addresses of functions, which differ from run to run."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(tx))


def slot_rows(stage: Keys, state: Any, params: Any) -> list[Slot]:
    """A row for each array of a stage's state, by field and then by parameter."""
    names, rows = parameter_names(params), []
    shapes = dict(jax.tree_util.tree_flatten_with_path(unwrapped(params))[0])
    for path, group in itertools.groupby(split(state, params), key=lambda part: (*part.stage, *part.field)):
        begin = len(rows)
        for part in group:
            owner = part.parameter
            elements = 0 if owner is None else math.prod(shapes[owner].shape)
            for rest, x in jax.tree_util.tree_flatten_with_path(part.value)[0]:
                rows.append(
                    Slot(
                        stage,
                        (_name(path) + jax.tree_util.keystr(rest)) or "state",
                        "" if owner is None else names[owner] or "(root)",
                        tuple(x.shape),
                        str(x.dtype),
                        size := math.prod(x.shape) * x.dtype.itemsize,
                        size / elements if elements else None,
                        (_name(part.field) + jax.tree_util.keystr(rest)) or "state",
                        sharding_of(x),
                    )
                )
        # If a slot has several arrays for a parameter (of a codec, or factors), each is listed as a field.
        order = list(dict.fromkeys(r.field for r in rows[begin:]))
        rows[begin:] = sorted(rows[begin:], key=lambda r: order.index(r.field))
    return rows


def sharding_of(x: Any) -> str:
    """How an array is laid out over devices, as its `PartitionSpec`; empty for one device or if unknown."""
    sharding = getattr(x, "sharding", None)
    if isinstance(sharding, jax.sharding.NamedSharding):
        return spec_text(sharding)
    known = isinstance(sharding, jax.sharding.Sharding) and len(sharding.device_set) > 1
    return type(sharding).__name__ if known else ""


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
