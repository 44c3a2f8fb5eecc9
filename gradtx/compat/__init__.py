# SPDX-License-Identifier: Apache-2.0
"""Other libraries' names for what gradtx has: `from gradtx.compat import optax`."""

from gradtx.compat import optax as optax
from gradtx.compat._interop import as_optax as as_optax
