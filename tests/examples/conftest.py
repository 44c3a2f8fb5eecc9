# SPDX-License-Identifier: Apache-2.0
"""Examples as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from gradtx.core import _factory as factory

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch):
    """Loads an example, a script and no package, as a module of its own."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # What an example defines is pickled by name; what it registers is nobody else's.
        monkeypatch.setitem(sys.modules, spec.name, module)
        monkeypatch.setattr(factory, "REGISTRY", dict(factory.REGISTRY))
        spec.loader.exec_module(module)
        return module

    return load
