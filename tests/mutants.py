# SPDX-License-Identifier: Apache-2.0
"""Mutants: a function with one sign, operator, comparison or decay changed. Two scripts ask which tests notice them:

`mutation.py` asks the formulas, `mutation_of_the_run.py` the tests that pytest runs.
"""

import ast
import copy
import gc
import inspect
import sys
import textwrap
import types
from collections.abc import Iterator
from typing import Any

SWAPS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq,
}
LOGIC = {
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Not: None,  # left out
}
"""What is changed as well where code decides and arranges, more than that it computes."""


def mutated(node: ast.AST, swaps: dict = SWAPS) -> list[ast.AST]:
    """The mutants of one node."""
    if isinstance(node, ast.BinOp) and type(node.op) in swaps:
        return [ast.BinOp(node.left, swaps[type(node.op)](), node.right)]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return [node.operand]
    if isinstance(node, ast.Compare) and type(node.ops[0]) in swaps:
        return [ast.Compare(node.left, [swaps[type(node.ops[0])](), *node.ops[1:]], node.comparators)]
    if isinstance(node, ast.BoolOp) and type(node.op) in swaps:
        return [ast.BoolOp(swaps[type(node.op)](), node.values)]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not) and ast.Not in swaps:
        return [node.operand]
    if isinstance(node, ast.IfExp):
        return [ast.IfExp(node.test, node.orelse, node.body)]
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "ema" and len(node.args) == 3:
        flipped = ast.BinOp(ast.Constant(1), ast.Sub(), node.args[2])
        return [ast.Call(node.func, [*node.args[:2], flipped], node.keywords)]
    return []


class Place(ast.NodeTransformer):
    """Replaces the n-th mutable node of a function by its mutant, leaving errors, annotations and defaults alone."""

    def __init__(self, target: int, swaps: dict):
        self.target, self.swaps, self.seen, self.line = target, swaps, 0, 0

    def visit_Raise(self, node):
        return node

    def visit_JoinedStr(self, node):
        return node

    def visit_FunctionDef(self, node):
        node.body = [self.visit(x) for x in node.body]
        return node

    def generic_visit(self, node):
        for mutant in mutated(node, self.swaps):
            self.seen += 1
            if self.seen - 1 == self.target:
                self.line = getattr(node, "lineno", 0)
                return ast.copy_location(mutant, node)
        return super().generic_visit(node)


def functions(module: types.ModuleType, methods: bool = False) -> list[tuple[str, types.FunctionType]]:
    """The functions that a module defines: the bodies of its factories, its helpers, and the methods of its classes."""
    found = []
    for name, thing in vars(module).items():
        if getattr(thing, "__module__", None) != module.__name__:
            continue
        if methods and isinstance(thing, type):
            found += [(f"{name}.{n}", f) for n, x in vars(thing).items() if (f := _function(x))]
        elif (methods or isinstance(thing, types.FunctionType)) and (function := _function(thing)):
            found.append((name, function))
    return list({id(f): (n, f) for n, f in found if f.__module__ == module.__name__}.values())


def _function(thing: Any) -> types.FunctionType | None:
    """The function behind decorators, a property or a class method."""
    factory = getattr(thing, "factory", None)
    if isinstance(thing, types.FunctionType) and factory is not None:
        return factory.body
    for inner in ("fget", "func", "__func__"):  # of a property, a cached one, a static or class method
        thing = getattr(thing, inner, thing)
    thing = inspect.unwrap(thing) if callable(thing) else thing
    return thing if isinstance(thing, types.FunctionType) else None


def mutants(function: types.FunctionType, logic: bool = False) -> Iterator[tuple[int, types.CodeType]]:
    """(line, code object) of each mutant of a function."""
    swaps = SWAPS | LOGIC if logic else SWAPS
    if function.__code__.co_filename != sys.modules[function.__module__].__file__:  # a method of a named tuple
        return
    lines, first = inspect.getsourcelines(function)
    tree = ast.parse(textwrap.dedent("".join(lines))).body[0]
    if not isinstance(tree, ast.FunctionDef):  # a lambda
        return
    tree.decorator_list = []
    count = Place(-1, swaps)
    count.visit(copy.deepcopy(tree))
    for target in range(count.seen):
        place = Place(target, swaps)
        changed = place.visit(copy.deepcopy(tree))
        module = ast.fix_missing_locations(ast.Module([changed], []))
        namespace: dict = {}
        try:
            exec(compile(module, function.__code__.co_filename, "exec"), dict(function.__globals__), namespace)
        except Exception:  # a default or an annotation that only the real module can evaluate
            continue
        code = namespace[tree.name].__code__
        if code.co_freevars == function.__code__.co_freevars:  # else a method that calls that of its base by `super`
            yield first + place.line - 1, code


def put(function: types.FunctionType, code: types.CodeType) -> None:
    """Makes the function a mutant, and those inside of it that are there already, as what a decorator returned is."""
    made = dict(_inner(function.__code__, code))
    function.__code__ = code
    for thing in gc.get_objects():
        if isinstance(thing, types.FunctionType) and id(thing.__code__) in made:
            thing.__code__ = made[id(thing.__code__)]


def _inner(old: types.CodeType, new: types.CodeType) -> Iterator[tuple[int, types.CodeType]]:
    """The identities of the codes inside of a code, each with what it is in the other code."""
    olds, news = ([x for x in code.co_consts if isinstance(x, types.CodeType)] for code in (old, new))
    for a, b in zip(olds, news, strict=True) if len(olds) == len(news) else ():
        if a.co_name == b.co_name and a.co_freevars == b.co_freevars:
            yield id(a), b
            yield from _inner(a, b)
