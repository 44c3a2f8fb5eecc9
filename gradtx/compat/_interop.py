# SPDX-License-Identifier: Apache-2.0
"""gradtx's transformations as objects of other libraries."""

from typing import Any

from gradtx.core._transformation import taking_extra_args


def as_optax(tx: Any) -> Any:
    """The transformation as an `optax.GradientTransformationExtraArgs`, for code that tests `isinstance` of it.

    Other code for Optax takes gradtx's transformations as they are. Optax is imported only by this call.

    Raises:
      ImportError: if Optax is not installed.
    """
    tx = taking_extra_args("as_optax: tx", tx)
    try:
        import optax
    except ImportError as error:
        raise ImportError("as_optax: Optax is not installed: pip install optax") from error
    return optax.GradientTransformationExtraArgs(tx.init, tx.update)
