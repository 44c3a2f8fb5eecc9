# SPDX-License-Identifier: Apache-2.0
"""The stages that chains are made of."""
