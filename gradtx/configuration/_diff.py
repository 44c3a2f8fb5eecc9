# SPDX-License-Identifier: Apache-2.0
"""What differs between two transformations, call by call."""

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from gradtx.configuration._from_dict import from_dict
from gradtx.configuration._names import FUNCTION, Known, Maker, Names
from gradtx.configuration._to_dict import Opaque, Writer, check_called, is_made
from gradtx.core._checked import checked
from gradtx.core._nesting import is_transformation
from gradtx.core._sentences import listed, shortened


@dataclasses.dataclass(frozen=True)
class Change:
    """One thing that differs between two transformations.

    Attributes:
      path: the steps to the call: the numbers or names of stages, the arguments of wrappers; empty for the outermost.
      argument: the argument of the call, with the place in it; empty if the call itself is another.
      left, right: the two values as plain data; None on the side where there is none.
      kind: "changed", or "added" or "removed" for a stage or an entry that only one side has.
      shown: left and right as text.
    """

    path: str
    argument: str
    left: Any
    right: Any
    kind: Literal["changed", "added", "removed"] = "changed"
    shown: tuple[str, str] = ("", "")

    def __str__(self) -> str:
        place = ".".join(x for x in (self.path, self.argument) if x)
        begin = f"{place}: " if place else ""
        if self.kind == "changed":
            return f"{begin}{self.shown[0]} -> {self.shown[1]}"
        return f"{begin}{self.kind} {self.shown[self.kind == 'added']}"


@dataclasses.dataclass(frozen=True)
class Difference:
    """What `diff` finds: true if anything differs. `print` shows a line for each change."""

    changes: tuple[Change, ...]

    def __bool__(self) -> bool:
        return bool(self.changes)

    def __len__(self) -> int:
        return len(self.changes)

    def __iter__(self) -> Iterator[Change]:
        return iter(self.changes)

    def to_dict(self) -> dict[str, Any]:
        """The changes as dictionaries, lists, strings and numbers."""
        names = [field.name for field in dataclasses.fields(Change)]
        return {"changes": [{n: _plain(getattr(change, n)) for n in names} for change in self.changes]}

    def __str__(self) -> str:
        return "\n".join(map(str, self.changes)) or "no difference"


@checked
def diff(left: Any, right: Any, *, names: Names = None) -> Difference:
    """What differs between two transformations: by the path of the calls, the argument, and both values.

    Stages of chains are compared with stages of the same name, so that a stage in between is one change. Equal numbers
    are equal whether they are whole or not.

    Args:
      left, right: transformations, or other values made by calls; or what `to_dict` made of them.
      names: as in `to_dict`. Functions without a name are compared too.

    Raises:
      TypeError: for what is neither.
    """
    return difference_of("diff", {"left": left, "right": right}, names)


def difference_of(where: str, two: dict[str, Any], names: Names) -> Difference:
    """What differs between two arguments of the function `where`."""
    known = Known(where, names)
    writer = Writer(known, defaults=True, opaque=True)
    sides = []
    for side, x in two.items():
        check_called(f"{where}: {side}", x)
        data = dict(x) if isinstance(x, Mapping) else writer.data(x, "")
        if not is_made(data) and not is_transformation(x):
            raise TypeError(f"{where}: {side} must be a transformation or what to_dict made of one, got {x!r}")
        sides.append(data)
    found = _Comparison(known, writer, names).compared(sides[0], sides[1], _CallPlace("", ""))
    return Difference(tuple(found))


class _CallPlace(NamedTuple):
    path: str
    argument: str

    def step(self, name: str) -> "_CallPlace":
        """The place of a call that is an argument of this one."""
        return _CallPlace(".".join(x for x in (self.path, self.argument, name) if x), "")

    def at(self, argument: str) -> "_CallPlace":
        return _CallPlace(self.path, self.argument + argument)


@dataclasses.dataclass(frozen=True)
class _Comparison:
    known: Known
    writer: Writer
    names: Names

    def compared(self, a: Any, b: Any, place: _CallPlace) -> Iterator[Change]:
        a, b = _opened(a), _opened(b)
        if _is_call(a) and _is_call(b):
            if a["call"] == b["call"]:
                yield from self._calls(a, b, place.step("") if place.argument else place)
            else:
                yield self._change(place, a, b)
        elif isinstance(a, dict) and isinstance(b, dict) and not _is_call(a) and not _is_call(b):
            for key in dict.fromkeys([*a, *b]):
                here = place.at(f"[{key!r}]")
                if key in a and key in b:
                    yield from self.compared(a[key], b[key], here)
                else:
                    yield self._change(here, a.get(key), b.get(key), "added" if key in b else "removed")
        elif isinstance(a, list) and isinstance(b, list) and any(isinstance(x, dict | list) for x in [*a, *b]):
            whole = len(a) == len(b)
            keys = [[i if whole else repr(x) for i, x in enumerate(side)] for side in (a, b)]
            yield from self._items(a, b, keys, lambda side, i: place.at(f"[{i}]"))
        elif not _same(a, b):
            yield self._change(place, a, b)

    def _calls(self, a: dict, b: dict, place: _CallPlace) -> Iterator[Change]:
        maker = self.known.makers.get(a["call"])
        for name in dict.fromkeys([*a, *b]):
            x, y = self._argument(a, maker, name), self._argument(b, maker, name)
            if a["call"] in ("chain", "named_chain") and name == "transformations":
                yield from self._stages(x, y, place)
            elif name != "call":
                yield from self.compared(x, y, place.at(name))

    def _argument(self, data: dict, maker: Maker | None, name: str) -> Any:
        """An argument of a call; where it is not written, its default."""
        if name in data or maker is None or name not in maker.parameters:
            return data.get(name)
        default = maker.default(name)
        return None if default is inspect.Parameter.empty else self.writer.argument(maker, name, default, name)

    def _stages(self, a: list, b: list, place: _CallPlace) -> Iterator[Change]:
        """The stages of two chains, or the pairs of two named ones."""
        steps = [[str(x[0]) if isinstance(x, list) else str(i) for i, x in enumerate(side)] for side in (a, b)]
        stages = [[x[1] if isinstance(x, list) else x for x in side] for side in (a, b)]
        is_named = [isinstance(x, list) for x in [*a, *b]]
        keys = [
            [(step if any(is_named) else "", _name(stage)) for step, stage in zip(*side, strict=True)]
            for side in zip(steps, stages, strict=True)
        ]
        yield from self._items(stages[0], stages[1], keys, lambda side, i: place.step(steps[side][i]))

    def _items(self, a: list, b: list, keys: list[list], at: Callable[[int, int], _CallPlace]) -> Iterator[Change]:
        """The entries of two lists, those with equal keys beside each other."""
        for _, i, i_end, j, j_end in difflib.SequenceMatcher(None, *keys, autojunk=False).get_opcodes():
            paired = min(i_end - i, j_end - j)
            for x, number in zip(a[i : i + paired], range(j, j + paired), strict=True):
                yield from self.compared(x, b[number], at(1, number))
            for number in range(i + paired, i_end):
                yield self._change(at(0, number), a[number], None, "removed")
            for number in range(j + paired, j_end):
                yield self._change(at(1, number), None, b[number], "added")

    def _change(self, place: _CallPlace, a: Any, b: Any, kind: Any = "changed") -> Change:
        return Change(place.path, place.argument, a, b, kind, (self.text(a), self.text(b)))

    def text(self, data: Any) -> str:
        """Data as the call that it says; by its parts, if it cannot be called."""
        data = _opened(data)
        if isinstance(data, list):
            return f"({', '.join(map(self.text, data))}{',' * (len(data) == 1)})"
        if not isinstance(data, dict):
            return repr(data)
        if not _is_call(data):
            return "{" + ", ".join(f"{k!r}: {self.text(x)}" for k, x in data.items()) + "}"
        if data["call"] == FUNCTION:
            return str(data.get("name"))
        try:
            return repr(from_dict(data, names=self.names))
        except (TypeError, ValueError):
            arguments = ", ".join(f"{n}={self.text(x)}" for n, x in data.items() if n != "call")
            return f"{data['call']}({arguments})"


def _opened(data: Any) -> Any:
    """The list or dictionary that a call in data stands for, and what YAML made of these; other data as they are."""
    if isinstance(data, tuple):
        return list(data)
    if _is_call(data) and data["call"] == "list":
        return data["items"]
    if _is_call(data) and data["call"] == "dict":
        return _PlainEntries((repr(key) if isinstance(key, list | dict) else key, x) for key, x in data["items"])
    return data


class _PlainEntries(dict):
    """A dictionary that is no call, whatever its keys are."""


def _is_call(x: Any) -> bool:
    return isinstance(x, dict) and "call" in x and not isinstance(x, _PlainEntries)


def _same(a: Any, b: Any) -> bool:
    return isinstance(a, bool) == isinstance(b, bool) and a == b


def _name(stage: Any) -> str:
    return stage["call"] if _is_call(stage) else repr(stage)


def _plain(x: Any) -> Any:
    if isinstance(x, Opaque):
        return repr(x)
    if isinstance(x, Mapping):
        return {name: _plain(y) for name, y in x.items()}
    return [_plain(y) for y in x] if isinstance(x, list | tuple) else x


def sentence(difference: Difference) -> str:
    """The first changes, as the middle of a sentence."""
    return listed([shortened(str(change), 160) for change in difference], joint="; ")
