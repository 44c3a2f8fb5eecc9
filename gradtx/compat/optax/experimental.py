# SPDX-License-Identifier: Apache-2.0
"""The place of `optax.experimental`, in which nothing is public."""
