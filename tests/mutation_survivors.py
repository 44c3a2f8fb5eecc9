# SPDX-License-Identifier: Apache-2.0
"""Mutants that no formula can notice, by file and line of code, with the reason."""

EXPLAINED: dict[tuple[str, str], str] = {}
