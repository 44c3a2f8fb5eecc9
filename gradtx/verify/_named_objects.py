# SPDX-License-Identifier: Apache-2.0
"""Objects that a command line names: `module:name`, or a call as in Python, `optax:chain(clip(1.0), adam(1e-3))`.

A call is read, not evaluated: names are looked up in the module, and what is no name, call or literal is refused.
"""

import ast
import importlib
from types import ModuleType
from typing import Any


class Unusable(ValueError):
    """What a command line says cannot be done, in one sentence."""


def named_object(text: str) -> Any:
    """The object that this text names."""
    name, _, expression = text.partition(":")
    if not (name and expression):
        raise Unusable(f"{text!r} must be module:name or module:call, such as optax:adamw(1e-3)")
    try:
        module = importlib.import_module(name)
    except Exception as error:  # of any class: the module is somebody's program
        raise Unusable(f"the module {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except SyntaxError:
        raise Unusable(f"{expression!r} is neither a name nor a call, such as adamw(1e-3)") from None
    return _value(tree.body, module)


def _value(node: ast.expr, module: ModuleType) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Name() | ast.Attribute():
            owner = module if isinstance(node, ast.Name) else _value(node.value, module)
            name = node.id if isinstance(node, ast.Name) else node.attr
            try:
                return getattr(owner, name)
            except AttributeError:
                raise Unusable(f"{getattr(owner, '__name__', owner)} has no {name!r}") from None
        case ast.Tuple() | ast.List():
            items = [_value(x, module) for x in node.elts]
            return tuple(items) if isinstance(node, ast.Tuple) else items
        case ast.Dict() if None not in node.keys:
            return {_value(k, module): _value(x, module) for k, x in zip(node.keys, node.values, strict=True) if k}
        case ast.Call() if all(keyword.arg for keyword in node.keywords):
            function = _value(node.func, module)
            arguments = [_value(x, module) for x in node.args]
            return called(
                function,
                ast.unparse(node),
                *arguments,
                **{k.arg: _value(k.value, module) for k in node.keywords if k.arg},
            )
        case _:
            raise Unusable(f"{ast.unparse(node)!r} is no name, call or literal")


def called(function: Any, text: str, *args: Any, **kwargs: Any) -> Any:
    """The result of a call, or a sentence about its error."""
    try:
        return function(*args, **kwargs)
    except Exception as error:  # of any class: the function is somebody's
        raise Unusable(f"{text} raised {type(error).__name__}: {str(error).partition(chr(10))[0]}") from error
