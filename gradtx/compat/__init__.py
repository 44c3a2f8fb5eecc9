# SPDX-License-Identifier: Apache-2.0
"""The names of other libraries for functions of gradtx: `from gradtx.compat import optax`."""

from gradtx.compat import optax as optax
from gradtx.compat._carry_state import carry_state as carry_state
from gradtx.compat._interop import as_optax as as_optax
