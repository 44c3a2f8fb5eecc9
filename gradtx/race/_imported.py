# SPDX-License-Identifier: Apache-2.0
"""Things of other modules, by their import path: `package.module:name`."""

import importlib
from typing import Any


def imported(path: str) -> Any:
    """What `package.module:name` names; the name may go on inside, `package:submodule.name`.

    Raises:
      ValueError: if the text is no such path, or there is no such module or name.
    """
    module, colon, name = path.partition(":")
    if not (colon and all(part.isidentifier() for part in (*module.split("."), *name.split(".")))):
        raise ValueError(f"an import path is written package.module:name, got {path!r}")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, and misses another one
        raise ValueError(f"{path}: there is no module {error.name}") from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{path}: {getattr(found, '__name__', found)} has no {part}")
        found = getattr(found, part)
    return found
