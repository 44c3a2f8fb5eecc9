# SPDX-License-Identifier: Apache-2.0
"""Selecting parameters: by globs or regular expressions on their paths, predicates, or kinds of roles."""

import dataclasses
import difflib
import functools
import operator
import re
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core._prefixes import is_partial
from gradtx.core._roles import KINDS, Boxed, Role, is_box, is_full_box, logical_view
from gradtx.core._sentences import CHOICES, listed
from gradtx.core._types import Params


@dataclasses.dataclass(frozen=True)
class OfKind:
    """Selects the parameters whose role has one of these kinds."""

    kinds: tuple[str, ...]

    @property
    def made_by(self) -> tuple[Callable[..., Any], dict[str, Any]]:
        return of_kind, {"kinds": self.kinds}

    def __repr__(self) -> str:
        return f"of_kind({', '.join(map(repr, self.kinds))})"


def of_kind(*kinds: str) -> OfKind:
    """Selects parameters by the kind of their role, in `where` and in rules of groups: `of_kind("norm", "bias")`.

    Roles are known to transformations inside `with_roles`.

    Args:
      *kinds: one or more of the kinds of a `Role`.

    Raises:
      ValueError: for a kind that `Role` does not have.
    """
    wrong = [kind for kind in kinds if kind not in KINDS]
    if wrong or not kinds:
        raise ValueError(f"of_kind: give kinds out of {', '.join(KINDS)}, got {', '.join(map(repr, wrong)) or 'none'}")
    return OfKind(kinds)


@dataclasses.dataclass(frozen=True)
class Selector:
    """What `where` returns: a selection of parameters, which is also a function from parameters to their mask."""

    chosen: Any
    inverted: bool = False

    # Asks wrappers to pass the parameters in boxes, with their roles.
    of_boxes: ClassVar[bool] = True

    @property
    def made_by(self) -> tuple[Callable[..., Any], dict[str, Any]]:
        if self.inverted:
            return operator.invert, {"chosen": ~self}
        return where, {"chosen": self.chosen if isinstance(self.chosen, tuple) else (self.chosen,)}

    def __repr__(self) -> str:
        chosen = self.chosen if isinstance(self.chosen, tuple) else (self.chosen,)
        return f"{'~' * self.inverted}where({', '.join(map(described, chosen))})"

    def __invert__(self) -> "Selector":
        return dataclasses.replace(self, inverted=not self.inverted)

    def __call__(self, params: Params) -> Any:
        names, leaves, treedef = named_leaves(params)
        check_found(f"{self!r}: this", self.chosen, params, names)
        return jax.tree.unflatten(treedef, list(map(self._flag, names, leaves)))

    def _flag(self, path: str, leaf: Any) -> bool | None:
        if leaf is None:
            return None
        if not is_box(leaf):
            return matches(self, path, leaf, None)
        return is_full_box(leaf) and leaf.value is not None and matches(self, path, leaf.value, leaf.role)


Where = str | re.Pattern | Callable[[str, Any], bool] | OfKind | Selector | tuple["Where", ...]


def where(*chosen: Where) -> Selector:
    """Selects the parameters that match any of the arguments; `~where(...)` selects the others.

    The result can be used as a mask: `gradtx.adamw(1e-3, mask=~where("bias", "*norm*/**"))`. A glob is matched against
    the path of a parameter, names joined by "/", or against its last names: "kernel" matches "block/0/kernel". With a
    leading "/" it must match the whole path. `*` stands for anything but "/", `**` for anything, `?` for one character,
    `[ab]` and `[!ab]` for one of a set.

    Args:
      *chosen: globs; compiled regular expressions, which are searched in the path; functions `f(path, parameter)` that
        return a boolean (inside `with_roles`, a stack is given as shape and dtype of one parameter); `of_kind(...)`; or
        tuples of these, any of which may match.

    Raises:
      TypeError, ValueError: for any other argument, for a glob that cannot match a path, and, when the mask is made,
        for globs and regular expressions of which none matches a parameter.
    """
    checked = check_where("where", chosen)
    return Selector(checked[0] if len(checked) == 1 else checked)


def check_where(context: str, given: Any) -> Any:
    """The selection with lists turned into tuples; an error if it is not a selection of parameters."""
    if isinstance(given, tuple | list):
        if not given:
            raise ValueError(f"{context}: an empty tuple chooses no parameters; name some, such as '**' for all")
        return tuple(check_where(context, x) for x in given)
    if isinstance(given, str):
        _check_glob(context, given)
    elif not isinstance(given, re.Pattern | OfKind) and (isinstance(given, type) or not callable(given)):
        raise TypeError(
            f"{context}: parameters are chosen by a glob, a compiled regular expression, a function of the path and "
            f"the parameter, of_kind(...) or a tuple of those, got {given!r}"
        )
    elif isinstance(given, re.Pattern) and not isinstance(given.pattern, str):
        raise TypeError(f"{context}: a regular expression on paths must be of str, got {given!r}")
    return given


def matches(chosen: Where, path: str, leaf: Any, role: Role | None) -> bool:
    """Whether the selection has the parameter at the path; predicates get a stack as the shape of one parameter."""
    if isinstance(chosen, str):
        return _glob(chosen).fullmatch(path) is not None
    if isinstance(chosen, tuple):
        return any(matches(x, path, leaf, role) for x in chosen)
    if isinstance(chosen, Selector):
        return matches(chosen.chosen, path, leaf, role) != chosen.inverted
    if isinstance(chosen, re.Pattern):
        return chosen.search(path) is not None
    if isinstance(chosen, OfKind):
        if role is None:
            raise ValueError(
                f"{chosen!r} asks for the kind of the parameter at {path or 'the root'}, which nobody said: "
                f"wrap the whole transformation in with_roles(rules, ...)"
            )
        return role.kind in chosen.kinds
    answer = chosen(path, _shown(leaf, role))
    if not isinstance(answer, bool | np.bool_):
        raise TypeError(f"{described(chosen)} must return True or False at {path or 'the root'}, got {answer!r}")
    return bool(answer)


def check_found(who: str, chosen: Where, params: Params, names: list[str]) -> None:
    """Raises for paths that no parameter has, which are a mistake; a kind may well be absent from a model.

    Args:
      who: what chooses, for the error.
      names: the paths of the parameters.
    """
    if _is_by_path(chosen) and not is_partial(params) and not any(matches(chosen, x, None, None) for x in names):
        raise ValueError(f"{who} matches no parameter{what_instead(chosen, names)}")


def _is_by_path(chosen: Any) -> bool:
    """Whether the selection needs nothing but the paths of parameters."""
    if isinstance(chosen, tuple):
        return all(map(_is_by_path, chosen))
    return _is_by_path(chosen.chosen) if isinstance(chosen, Selector) else isinstance(chosen, str | re.Pattern)


def what_instead(chosen: Where, paths: Iterable[str]) -> str:
    """What may have been meant by a choice that matches none of the paths: the end of an error that says so."""
    below = f"{chosen}/**"
    if isinstance(chosen, str) and any(matches(below, path, None, None) for path in paths):
        return f" but those below: write {below!r}"
    return f"; {known_paths(chosen, paths)}"


def known_paths(given: Any, paths: Iterable[str]) -> str:
    """The paths closest to the given one, or the first paths, as text."""
    paths = sorted(paths)
    close = difflib.get_close_matches(given.strip("/*"), paths, n=3, cutoff=0.5) if isinstance(given, str) else []
    if close:
        return f"the closest are {', '.join(close)}"
    return f"the parameters are {listed(paths, CHOICES)}"


def described(chosen: Any) -> str:
    """A selection of parameters as text for errors: as the user wrote it, functions by name."""
    if isinstance(chosen, tuple):
        return f"({', '.join(map(described, chosen))}{',' * (len(chosen) == 1)})"
    if isinstance(chosen, functools.partial):
        arguments = [repr(x) for x in chosen.args] + [f"{n}={x!r}" for n, x in chosen.keywords.items()]
        return f"partial({', '.join([described(chosen.func), *arguments])})"
    return getattr(chosen, "__qualname__", None) or repr(chosen)


class Named(NamedTuple):
    """The leaves of a tree, where None and boxes are leaves, with their paths as text."""

    names: list[str]
    leaves: list
    treedef: Any


def named_leaves(tree: Any) -> Named:
    """The leaves with the paths that globs match: names joined by "/", without the `value` of flax's variables."""
    pairs, treedef = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_entry)
    carriers = set()
    if any(path and _is_value(path[-1]) for path, _ in pairs):
        held = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: is_entry(x) or is_carrier(x))[0]
        carriers = {path for path, x in held if is_carrier(x)}
    cut = [path[:-1] if path and _is_value(path[-1]) and path[:-1] in carriers else path for path, _ in pairs]
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path in cut]
    return Named(names, [leaf for _, leaf in pairs], treedef)


def is_carrier(x: Any) -> bool:
    """Whether this holds one value with metadata: a variable of flax's nnx, or a box of flax's linen."""
    return hasattr(x, "get_metadata") or hasattr(x, "replace_boxed")


def is_entry(x: Any) -> bool:
    return x is None or is_box(x)


def _is_value(key: Any) -> bool:
    return isinstance(key, jax.tree_util.GetAttrKey) and key.name == "value"


def _shown(leaf: Any, role: Role | None) -> Any:
    if role is not None:
        leaf = logical_view(Boxed(leaf, role))
    if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
        return leaf
    return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))


def _check_glob(context: str, glob: str) -> None:
    if not glob or glob.endswith("/"):
        meant = f"{glob}**" if glob.strip("/") else "**"
        raise ValueError(f"{context}: the glob {glob!r} matches no path; for all that is below write {meant!r}")
    try:
        _glob(glob)
    except (re.error, ValueError) as error:
        raise ValueError(f"{context}: {glob!r} is no glob: {error}") from None


@functools.lru_cache(maxsize=4096)
def _glob(glob: str) -> re.Pattern:
    """The glob as a regular expression for whole paths."""
    anchored = glob.startswith("/")
    text, parts, i = glob[anchored:], [], 0
    while i < len(text):
        starts = i == 0 or text[i - 1] == "/"
        if starts and text.startswith("**/", i):
            parts.append("(?:.*/)?")  # no part at all, too: "a/**/b" matches "a/b"
            i += 3
        elif text.startswith("**", i):
            parts.append(".*")
            i += 2
        elif text[i] == "[":
            # A "]" in first place is a member of the set.
            first = i + 1 + text.startswith("!", i + 1)
            end = text.find("]", first + 1)
            if end < 0:
                raise ValueError("a set that begins with '[' does not end; for the character itself write '[[]'")
            members = re.sub(r"([\\^\[\]&~|])", r"\\\1", text[first:end])
            parts.append(f"(?!/)[{'^' * (first - i - 1)}{members}]")
            i = end + 1
        else:
            parts.append({"*": "[^/]*", "?": "[^/]"}.get(text[i]) or re.escape(text[i]))
            i += 1
    return re.compile(("" if anchored else "(?:.*/)?") + "".join(parts), re.DOTALL)
