# SPDX-License-Identifier: Apache-2.0
"""Calling what a configuration names, with errors that say the place."""

import inspect
from collections.abc import Callable
from typing import Any

from gradtx.configuration._names import Maker


def called(maker: Maker, args: list, kwargs: dict[str, Any], place: Callable[[], str]) -> Any:
    """The result of the call; what is wrong with it is an error of the same kind that begins with the place."""
    try:
        if maker.factory is None:
            _check(maker, args, kwargs)
        return maker.function(*args, **kwargs)
    except (TypeError, ValueError, LookupError, AttributeError, NotImplementedError) as error:
        kind = ValueError if isinstance(error, ValueError | LookupError) else TypeError
        raise kind(f"{place()}: {_said(maker, error)}") from error


def _check(maker: Maker, args: list, kwargs: dict[str, Any]) -> None:
    parameters = list(maker.parameters.values())
    try:
        inspect.Signature(parameters).bind(*args, **kwargs)
    except TypeError as error:
        names = ", ".join(str(p) for p in maker.parameters)
        raise TypeError(f"{maker.name}: {error}; its arguments are {names or 'none'}") from None


def _said(maker: Maker, error: Exception) -> str:
    text = f"there is no {error}" if isinstance(error, KeyError) else str(error)
    return text if text.startswith(maker.name.rpartition(".")[2]) else f"{maker.name}: {text}"


def named(maker: Maker, arguments: dict[str, Any], place: Callable[[], str]) -> Any:
    """The call of which all arguments are given by name, those that are taken by place too."""
    left = dict(arguments)
    kinds = inspect.Parameter
    parameters = maker.parameters.values()
    args: list[Any] = []
    by_place = [p for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    rest = next((p.name for p in parameters if p.kind is kinds.VAR_POSITIONAL), None)
    keywords = next((p.name for p in parameters if p.kind is kinds.VAR_KEYWORD), None)
    for p in by_place:
        if p.name not in left and (p.default is p.empty or rest not in left):
            break
        args.append(left.pop(p.name, p.default))
    if rest is not None:
        given = left.pop(rest, ())
        if not isinstance(given, tuple | list):
            raise TypeError(f"{place()}: {rest} of {maker.name} must be a list, got {given!r}")
        args += given
    if keywords is not None:
        left |= left.pop(keywords, {})
    return called(maker, args, left, place)
