# SPDX-License-Identifier: Apache-2.0
"""Roles as rules that can be printed, edited and passed to `roles`."""

import re
from typing import Any

from gradtx.core._roles import Role
from gradtx.core._selectors import named_leaves
from gradtx.core._trees import show_path


class RoleRules(tuple):
    """Pairs of a glob and a Role, printed as Python, one pair on each line."""

    __slots__ = ()
    only_prints = True  # as an argument it is the tuple

    def __repr__(self) -> str:
        lines = (f"    ({glob!r}, {role!r}),\n" for glob, role in self)
        return f"(\n{''.join(lines)})" if self else "()"


def as_rules(roles: Any) -> RoleRules:
    """A tree of roles as rules for `roles`, one for each parameter; printed, they can be pasted into a program.

    Args:
      roles: a tree of `Role` like the parameters, as from `infer_roles`; None makes no rule.

    Raises:
      TypeError: if a leaf is no `Role`.
    """
    names, leaves, _ = named_leaves(roles)
    for name, role in zip(names, leaves, strict=True):
        if role is not None and not isinstance(role, Role):
            raise TypeError(f"as_rules: roles must hold a Role at {name or show_path(())}, got {role!r}")
    pairs = zip(names, leaves, strict=True)
    return RoleRules((_literal(name), role) for name, role in pairs if role is not None)


def _literal(name: str) -> str:
    """The glob that matches exactly this path."""
    return "/" + re.sub(r"([*?[])", r"[\1]", name) if name else "**"
