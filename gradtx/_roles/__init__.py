# SPDX-License-Identifier: Apache-2.0
"""Roles: what parameters are for, said once by rules on their paths."""
