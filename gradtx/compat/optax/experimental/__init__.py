# SPDX-License-Identifier: Apache-2.0
"""The place of `optax.experimental`."""

from gradtx.compat.optax.experimental import aggregating as aggregating
