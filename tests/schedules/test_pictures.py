# SPDX-License-Identifier: Apache-2.0
"""The picture of docs/schedules.md has every schedule and operation, and the page's expressions are schedules."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from gradtx.schedules._schedule import Schedule
from support.public import NAMES, SCHEDULES

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("schedule_pictures", ROOT / "docs" / "schedule_pictures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def factories(namespace: dict) -> set[str]:
    return {n for n, x in namespace.items() if hasattr(x, "factory") and "__" not in n}


def test_nothing_is_missing(pictures: ModuleType):
    drawn = {*factories(SCHEDULES), *(f".{n}" for n in factories(dict(vars(Schedule))))}
    assert set(pictures.SCHEDULES) == drawn
    for name, call in pictures.SCHEDULES.items():
        shown = repr(eval(call, dict(NAMES)))
        assert f"{name}(" in shown, f"the panel {name} draws {shown}"


@pytest.mark.slow
def test_the_picture_is_drawn(pictures: ModuleType, tmp_path: Path):
    pictures.main(["--out", str(tmp_path / "schedules.png")])
    assert (tmp_path / "schedules.png").read_bytes().startswith(b"\x89PNG")


def test_the_expressions_of_the_page_are_schedules():
    page = (ROOT / "docs" / "schedules.md").read_text()
    table = page[page.index("| schedule | expression |") : page.index("A schedule that has an end says so")]
    expressions = re.findall(r"^\| [^|]+ \| `([^`]+)`", table, re.MULTILINE)
    assert len(expressions) == 8
    for expression in expressions:
        assert isinstance(eval(expression, dict(NAMES)), Schedule)
