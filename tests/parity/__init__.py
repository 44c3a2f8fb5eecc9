# SPDX-License-Identifier: Apache-2.0
"""Calls that gradtx and optax 0.2.8 share, a family a file; each file has a list CALLS."""

import importlib
import pkgutil

CALLS = [c for m in pkgutil.iter_modules(__path__) for c in importlib.import_module(f"parity.{m.name}").CALLS]
