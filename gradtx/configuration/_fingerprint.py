# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint keeps of the optimizer, and the check when it is restored."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from gradtx.configuration._diff import difference_of, sentence
from gradtx.configuration._from_dict import from_data
from gradtx.configuration._names import Names
from gradtx.configuration._to_dict import data_of
from gradtx.core._checked import checked
from gradtx.core._sentences import shortened


@checked
def fingerprint(value: Any, *, names: Names = None) -> str:
    """A short text that is the same for equal configurations, in every process and version of Python, and differs else.

    It is a hash of `to_dict(value, defaults=True)`, so that a default that another version of gradtx changes makes
    another fingerprint. Whole numbers are the same whether they are written 1 or 1.0.

    Args:
      value: a transformation, or another value made by a call; or what `to_dict` made of it.
      names: as in `to_dict`.

    Raises:
      TypeError: for what is no configuration, as `to_dict`.
    """
    return _fingerprint("fingerprint", "value", value, names)


def _fingerprint(where: str, argument: str, value: Any, names: Names) -> str:
    made = from_data(where, argument, value, names) if isinstance(value, Mapping) else value
    data = data_of(where, argument, made, True, names)
    text = json.dumps(_canonical(data), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@checked
def check_configuration(kept: Mapping[str, Any] | str, tx: Any, *, names: Names = None) -> None:
    """Raises an error that says what changed if a checkpoint was made under another optimizer.

    Args:
      kept: what the checkpoint has: `to_dict(tx, defaults=True)` of its optimizer, or its `fingerprint`, which tells
        that something changed but not what.
      tx: the optimizer that is to go on with its state.
      names: as in `to_dict`.

    Raises:
      ValueError: if they differ, with the first differences.
      TypeError: for anything else in place of `kept`.
    """
    if isinstance(kept, str):
        present = _fingerprint("check_configuration", "tx", tx, names)
        if present != kept:
            raise ValueError(
                f"check_configuration: the state was saved under an optimizer with the fingerprint {kept}, and that of "
                f"{shortened(repr(tx), 160)} is {present}; to be told what changed, keep to_dict(tx, defaults=True)"
            )
    elif not isinstance(kept, Mapping):
        raise TypeError(f"check_configuration: kept must be what to_dict or fingerprint returned, got {kept!r}")
    elif found := difference_of("check_configuration", {"kept": kept, "tx": tx}, names):
        raise ValueError(
            f"check_configuration: the state was saved under another optimizer, with (saved -> now) {sentence(found)}; "
            f"from_dict(kept) makes that one, and migrate(state, tx, params) a state of this one"
        )


def _canonical(x: Any) -> Any:
    """The data with whole numbers as integers."""
    if isinstance(x, dict):
        return {name: _canonical(y) for name, y in x.items()}
    if isinstance(x, list):
        return list(map(_canonical, x))
    return int(x) if isinstance(x, float) and x.is_integer() else x
