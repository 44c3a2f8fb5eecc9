# SPDX-License-Identifier: Apache-2.0
"""Each section of Flax's Optimization Cookbook and each example of Optax's gallery has a place here."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = (DOCS / "examples.md").read_text()

COOKBOOK = [
    "exponential moving average",
    "low rank adaptation",
    "l-bfgs",
    "per-parameter learning rates",
    "gradient accumulation",
    "sharding optimization state",
]
GALLERY = [
    "quick start",
    "mnist with",
    "cifar-10",
    "nanolm",
    "flax",
    "haiku",
    "adversarial",
    "private",
    "freezing",
    "accumulation and microbatching",
    "aggregating",
    "l-bfgs",
    "assignment",
    "linear programming",
    "lookahead",
    "meta-learning",
    "optimistic",
    "perturbed",
    "plateau",
    "sharpness",
    "schedule-free",
    "ademamix",
    "muon",
]


def table(heading: str) -> dict[str, str]:
    text = EXAMPLES.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.*?) \| (.*) \|$", text, re.MULTILINE)
    return {theirs.lower(): here for theirs, here in rows[1:]}


@pytest.mark.parametrize(
    ("heading", "sections"), [("Where Flax's cookbook is", COOKBOOK), ("Where Optax's gallery is", GALLERY)]
)
def test_every_section_has_a_place(heading: str, sections: list[str]):
    rows = table(heading)
    for section in sections:
        (here,) = [here for theirs, here in rows.items() if section in theirs]
        links, commands = re.findall(r"\]\(([\w/]+\.md)", here), re.findall(r"`python (examples/\w+\.py)`", here)
        assert links or commands or "above" in here or section == "linear programming", section
        assert all((DOCS / page).exists() for page in links)
        assert all((DOCS.parent / program).exists() for program in commands)
