# SPDX-License-Identifier: Apache-2.0
"""The check that somebody said how parameters are split, where numbers of whole parameters are needed."""

import jax
from jax.core import Tracer

from gradtx.core._over_devices import unsaid_sentence, varying
from gradtx.core._roles import carried_split, is_full_box, opened
from gradtx.core._trees import show_path
from gradtx.core._types import Params


def check_said(where: str, params: Params) -> None:
    """Raises for a parameter of which this device has a part by its type, where nobody said so.

    Of gradients it would prove nothing: those of a part of a batch differ between devices too.
    """
    if not any(isinstance(x, Tracer) and varying(x) for x in jax.tree.leaves(params)):
        return
    for path, x in jax.tree_util.tree_leaves_with_path(params, is_leaf=is_full_box):
        if carried_split(x) is None and (names := varying(opened(x))):
            raise ValueError(f"{where}: at {show_path(path)}: {unsaid_sentence(names)}")
