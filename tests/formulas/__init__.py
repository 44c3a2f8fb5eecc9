# SPDX-License-Identifier: Apache-2.0
"""Every rule's formula in NumPy, a family a file; each file has a list CASES."""

import importlib
import pkgutil

CASES = [c for m in pkgutil.iter_modules(__path__) for c in importlib.import_module(f"formulas.{m.name}").CASES]
