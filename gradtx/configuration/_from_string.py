# SPDX-License-Identifier: Apache-2.0
"""The value that a call says, written as text. Text is parsed, never evaluated: only known names are called."""

import ast
import re
from collections.abc import Callable
from typing import Any

from jax.sharding import AxisType

from gradtx._groups._factors import Factor
from gradtx.configuration._constructing import called
from gradtx.configuration._names import Known, Maker, Names
from gradtx.core._calls import Value
from gradtx.core._checked import checked
from gradtx.core._nesting import is_factory
from gradtx.core._ranges import is_number
from gradtx.core._roles import Role
from gradtx.core._selectors import OfKind, Selector
from gradtx.core._sentences import shortened
from gradtx.precision._codec import Codec
from gradtx.schedules._schedule import Schedule

MOST = 60
"""How many characters of the text an error shows."""

_OPERATORS: dict[type, tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Add: ("+", lambda a, b: a + b),
    ast.Sub: ("-", lambda a, b: a - b),
    ast.Mult: ("*", lambda a, b: a * b),
    ast.Div: ("/", lambda a, b: a / b),
}
_IN_WORDS: dict[type, str] = {
    ast.Lambda: "a lambda",
    ast.Subscript: "a subscript",
    ast.JoinedStr: "an f-string",
    ast.Compare: "a comparison",
    ast.BoolOp: "a logical operation",
    ast.IfExp: "a condition",
    ast.NamedExpr: "an assignment",
    ast.Starred: "an unpacked argument",
    ast.Set: "a set",
    ast.Await: "an await",
}


@checked
def from_string(text: str, *, names: Names = None) -> Any:
    """The transformation that a call says, or other value: `from_string("chain(clip(1.0), adamw(1e-3))")`.

    It reads what values print as: `from_string(repr(tx)) == tx`. The text is parsed and never evaluated. It may call
    the factories of gradtx and of yours, with or without a namespace (`schedules.linear(10)`, `gradtx.adamw(1e-3)`),
    and what they take: roles, groups, codecs, selectors, methods of schedules. It may name public functions of gradtx
    as arguments, have numbers, text, lists, tuples and dictionaries, and `+ - * /` of numbers, schedules and multiples.

    Args:
      text: one call.
      names: what names mean that are not gradtx's: functions that may be arguments, and factories of yours. Factories
        of transformations, schedules and rules that are defined already are known without.

    Raises:
      TypeError, ValueError: with the place, what is there and what would be right.
    """
    found = parsed(text, Known("from_string", names))
    if not isinstance(found, Value | Role | Codec | OfKind | Selector | Factor):
        call = f": call it, {text.strip()}(...)" if is_factory(found) else ", such as adamw(1e-3)"
        raise TypeError(f"from_string: the text must be a call{call}; got {shortened(text, MOST)!r}")
    return found


def parsed(text: str, known: Known) -> Any:
    """What a text says: a call, or an argument of one, such as a number."""
    reader = _Parser(text.strip(), known)
    try:
        return reader.value(reader.tree)
    except RecursionError:
        raise ValueError("from_string: the calls are nested too deeply") from None


class _Parser:
    def __init__(self, text: str, known: Known):
        self.text, self.known = text, known
        try:
            self.tree = ast.parse(text, mode="eval").body
        except SyntaxError as error:
            at = self._at(error.lineno or 1, max((error.offset or 1) - 1, 0))
            raise ValueError(f"from_string: {at}: {error.msg}, in {shortened(text, MOST)!r}") from None
        except (ValueError, MemoryError, RecursionError) as error:
            raise ValueError(f"from_string: the text cannot be read: {error}") from None

    def _at(self, line: int, column: int) -> str:
        return f"at column {column + 1}" if "\n" not in self.text else f"at line {line}, column {column + 1}"

    def place(self, node: ast.expr) -> str:
        column = len(self.text.split("\n")[node.lineno - 1].encode()[: node.col_offset].decode())
        return f"from_string: {self._at(node.lineno, column)}"

    def value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant):
            return self._constant(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.Name | ast.Attribute):
            return self._name(node)
        if isinstance(node, ast.Tuple | ast.List):
            items = [self.value(x) for x in node.elts]
            return tuple(items) if isinstance(node, ast.Tuple) else items
        if isinstance(node, ast.Dict):
            return {self._key(node, k): self.value(v) for k, v in zip(node.keys, node.values, strict=True)}
        if isinstance(node, ast.UnaryOp):
            return self._signed(node)
        if isinstance(node, ast.BinOp):
            return self._combined(node)
        kind = _IN_WORDS.get(type(node), "a comprehension" if "Comp" in type(node).__name__ else "Python code")
        raise ValueError(
            f"{self.place(node)}: {kind} is no configuration, which has calls of known names, numbers, text, lists, "
            f"tuples and dictionaries: {_written(node)}"
        )

    def _constant(self, node: ast.Constant) -> Any:
        if node.value is ...:
            raise ValueError(f"{self.place(node)}: an array that prints with '...' is not whole: use to_dict")
        if isinstance(node.value, bytes | complex):
            raise ValueError(f"{self.place(node)}: there are no complex numbers and bytes here, got {node.value!r}")
        return node.value

    def _key(self, node: ast.Dict, key: ast.expr | None) -> Any:
        found = None if key is None else self.value(key)
        if key is None or isinstance(key, ast.Dict | ast.List):
            raise ValueError(f"{self.place(key or node)}: keys of a dictionary must be text or numbers")
        return found

    def _dotted(self, node: ast.expr) -> str | None:
        """The name `a.b.c`; None for what is more than a name."""
        if isinstance(node, ast.Name):
            return node.id
        start = self._dotted(node.value) if isinstance(node, ast.Attribute) else None
        return None if start is None else f"{start}.{node.attr}"  # type: ignore[union-attr]  # it is an attribute

    def _name(self, node: ast.expr) -> Any:
        name = self._dotted(node)
        if name is None:
            raise ValueError(f"{self.place(node)}: {_written(node)} is an attribute; only methods are called")
        if name.startswith("re.") and name[3:] in re.RegexFlag.__members__:
            return re.RegexFlag[name[3:]]
        return self._known(node, self.known.function, name)

    def _known(self, node: ast.expr, look: Callable[[str], Any], name: str) -> Any:
        try:
            return look(name)
        except ValueError as error:
            raise ValueError(f"{self.place(node)}: {error}") from None

    def _call(self, node: ast.Call) -> Any:
        name = self._dotted(node.func)
        if name is None and isinstance(node.func, ast.Call) and self._is_injection(node.func):
            factory = self._given(node.func)
            args, kwargs = self._given(node)
            names = ("inner_factory", "static_args", "hyperparam_dtype")
            options = {**dict(zip(names, factory[0], strict=False)), **factory[1]}
            maker = self.known.maker("inject_hyperparams")
            return called(maker, [], {**options, "args": tuple(args), "kwargs": kwargs}, lambda: self.place(node))
        if name is None and isinstance(node.func, ast.Attribute):
            return self._method(node, node.func)
        if name is None:
            raise ValueError(f"{self.place(node)}: only a name can be called, got {_written(node.func)}")
        maker = self._known(node, self.known.maker, name)
        if maker.name == "inject_hyperparams":
            raise ValueError(f"{self.place(node)}: call what it returns: inject_hyperparams(adamw)(1e-3)")
        if maker.name == "partial":
            args, kwargs = self._given(node)
            given = {"args": tuple(args[1:]), "keywords": kwargs}
            return called(maker, args[:1], given, lambda: self.place(node))
        if maker.name in ("Array", "array", "Mesh"):
            return called(maker, *self._given_words(node), lambda: self.place(node))
        return called(maker, *self._given(node), lambda: self.place(node))

    def _is_injection(self, node: ast.Call) -> bool:
        return (self._dotted(node.func) or "").removeprefix("gradtx.") == "inject_hyperparams"

    def _method(self, node: ast.Call, function: ast.Attribute) -> Any:
        owner = self.value(function.value)
        kind = type(owner).__name__
        if not isinstance(owner, Schedule):
            raise ValueError(
                f"{self.place(function)}: only schedules have methods here, and {shortened(repr(owner), MOST)} is none"
            )
        maker: Maker = self._known(function, self.known.maker, f"{kind}.{function.attr}")
        args, kwargs = self._given(node)
        return called(maker, [owner, *args], kwargs, lambda: self.place(node))

    def _given(self, node: ast.Call) -> tuple[list, dict[str, Any]]:
        """The arguments of a call."""
        for keyword in node.keywords:
            if keyword.arg is None:
                raise ValueError(f"{self.place(keyword.value)}: arguments cannot be unpacked; write them one by one")
        return [self.value(x) for x in node.args], {str(k.arg): self.value(k.value) for k in node.keywords}

    def _given_words(self, node: ast.Call) -> tuple[list, dict[str, Any]]:
        """The arguments of an array or a mesh, which print dtypes and types of axes as bare names."""

        def read(x: ast.expr) -> Any:
            if isinstance(x, ast.Name) and x.id in AxisType.__members__:
                return AxisType[x.id]
            return tuple(map(read, x.elts)) if isinstance(x, ast.Tuple) else self.value(x)

        def word(k: ast.keyword) -> Any:
            return k.value.id if k.arg == "dtype" and isinstance(k.value, ast.Name) else read(k.value)

        return [read(x) for x in node.args], {str(k.arg): word(k) for k in node.keywords}

    def _signed(self, node: ast.UnaryOp) -> Any:
        x = self.value(node.operand)
        if isinstance(node.op, ast.Invert) and isinstance(x, Selector):
            return ~x
        if isinstance(node.op, ast.USub) and (is_number(x) or isinstance(x, Schedule)):
            return -x
        if isinstance(node.op, ast.UAdd) and is_number(x):
            return x
        raise ValueError(
            f"{self.place(node)}: the sign before {_written(node.operand)} has no meaning here: - is for "
            f"numbers and schedules, ~ for where(...)"
        )

    def _combined(self, node: ast.BinOp) -> Any:
        a, b = self.value(node.left), self.value(node.right)
        if isinstance(node.op, ast.BitOr) and isinstance(a, re.RegexFlag) and isinstance(b, re.RegexFlag):
            return a | b
        sign, combine = _OPERATORS.get(type(node.op), ("", None))
        wrong = next((x for x in (a, b) if not (is_number(x) or isinstance(x, Schedule | Factor))), None)
        if combine is None or wrong is not None:
            raise ValueError(
                f"{self.place(node)}: + - * / are for numbers, schedules and multiples, got {_written(node)}"
            )
        try:
            return combine(a, b)
        except (TypeError, ZeroDivisionError, OverflowError) as error:
            raise ValueError(f"{self.place(node)}: {_written(node)}: {error}") from None


def _written(node: ast.AST) -> str:
    """The text of a node, as errors show it."""
    return shortened(ast.unparse(node), MOST)
