# SPDX-License-Identifier: Apache-2.0
"""Roles: what parameters are for, declared once by rules on their paths."""
