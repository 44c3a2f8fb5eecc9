# SPDX-License-Identifier: Apache-2.0
"""The value that plain data says."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

from gradtx.configuration._constructing import named
from gradtx.configuration._from_string import parsed
from gradtx.configuration._names import FUNCTION, Known, Maker, Names
from gradtx.core._checked import checked
from gradtx.core._kinds import Kind, shown
from gradtx.core._ranges import Range


def _fault(data: Any) -> str | None:
    if isinstance(data, Mapping):
        return None
    return f"{shown(data)}; from_string reads calls" if isinstance(data, str) else shown(data)


Data = Annotated[Mapping[str, Any], Kind("a dictionary with a call", _fault)]


@checked
def from_dict(data: Data, *, names: Names = None) -> Any:
    """The transformation, or other value, of which `to_dict` made this: `from_dict({"call": "adamw", ...})`.

    The data may come from JSON, YAML or be written by hand. Where a number is asked for, text may stand for a schedule,
    `learning_rate: 3e-4 * warmup(1000).then(cosine(9000))`, or for a number that YAML takes for text, as it does 1e-3.

    Args:
      data: a dictionary with the name of a factory under "call" and its arguments; lists are tuples.
      names: what names mean that are not gradtx's: functions that may be arguments, and factories of yours. Factories
        of transformations, schedules and rules that are defined already are known without.

    Raises:
      TypeError, ValueError: with the place, such as transformations[1].b1, what is there and what would be right.
    """
    return from_data("from_dict", "data", data, names)


def from_data(where: str, argument: str, data: Mapping[str, Any], names: Names) -> Any:
    """What `from_dict` returns, with errors of the argument of the function `where`."""
    if "call" not in data:
        raise ValueError(f"{where}: {argument} has no 'call', the name of what is to be called; it has {list(data)}")
    try:
        return _Reader(Known(where, names)).value(data, "")
    except RecursionError:
        raise ValueError(f"{where}: the calls are nested too deeply") from None


@dataclasses.dataclass(frozen=True)
class _Reader:
    known: Known

    def value(self, x: Any, place: str) -> Any:
        if isinstance(x, Mapping):
            if "call" in x:
                return self._call(dict(x), place)
            return {key: self.value(y, f"{place}[{key!r}]") for key, y in x.items()}
        if isinstance(x, list | tuple):
            return tuple(self.value(y, f"{place}[{i}]") for i, y in enumerate(x))
        return x

    def _call(self, data: dict[str, Any], place: str) -> Any:
        name, here = data.pop("call"), f"{self.known.where}: {f'at {place}' if place else 'at the top'}"
        if not isinstance(name, str):
            raise TypeError(f"{here}: call must be the name of a factory, got {name!r}")
        if name == FUNCTION:
            return self._function(data, here)
        try:
            maker = self.known.maker(name)
        except ValueError as error:
            raise ValueError(f"{here}: {error}") from None
        wrong = [key for key in data if not isinstance(key, str)]
        if wrong:
            raise TypeError(f"{here}: the arguments of {name} have names, got {wrong[0]!r}")
        arguments = {n: self._argument(maker, n, y, f"{place}.{n}" if place else n) for n, y in data.items()}
        return named(maker, arguments, lambda: here)

    def _argument(self, maker: Maker, name: str, x: Any, place: str) -> Any:
        spec = None if maker.factory is None else maker.factory.specs.get(name)
        if isinstance(x, str) and isinstance(spec, Range):
            try:
                return parsed(x, self.known)
            except (TypeError, ValueError) as error:
                said = str(error).removeprefix("from_string: ")
                raise type(error)(
                    f"{self.known.where}: at {place}: {maker.name}: {name} must be {spec}, got {x!r}: {said}"
                ) from error
        return self.value(x, place)

    def _function(self, data: dict[str, Any], here: str) -> Any:
        if set(data) != {"name"} or not isinstance(data["name"], str):
            raise ValueError(
                f"{here}: a function is given by its name, {{'call': 'function', 'name': ...}}, got {data}"
            )
        try:
            return self.known.function(data["name"])
        except ValueError as error:
            raise ValueError(f"{here}: {error}") from None
