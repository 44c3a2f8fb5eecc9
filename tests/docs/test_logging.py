# SPDX-License-Identifier: Apache-2.0
"""The loops of docs/logging.md give each logger the same numbers at the same steps."""

import csv
import re
from pathlib import Path
from typing import Any

import pytest

import gradtx
from support.loggers import stand_in

PAGE = Path(__file__).parents[2] / "docs" / "logging.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.usefixtures("standard_promotion")
def test_every_logger_gets_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    logged = stand_in(monkeypatch)
    page: dict[str, Any] = {}
    for block in BLOCK.findall(PAGE.read_text()):
        exec(compile(block, PAGE.name, "exec"), page)

    with open("run.csv") as file:
        written = {int(row.pop("step")): {k: float(x) for k, x in row.items()} for row in csv.DictReader(file)}
    assert list(written) == [0, 20, 40]
    assert set(written[0]) == {"loss", "learning_rate", "grad_norm", "clip_fraction"}
    assert written[40]["loss"] < written[20]["loss"] < written[0]["loss"]
    assert logged.rows == {logger: written for logger in ("wandb", "trackio", "tensorboardX")}
    for step, numbers in written.items():
        returned = {name: float(values[step]) for name, values in page["history"].items()}
        assert returned == pytest.approx(numbers, rel=1e-5, abs=1e-7), "of the scan"

    tx = page["tx"]
    assert gradtx.from_dict(logged.told["wandb"]) == gradtx.from_dict(logged.told["trackio"]) == tx
    assert logged.told["tensorboardX"] == str(tx)
    assert logged.told["trackio finished"]
    last = {"loss": written[40]["loss"], "rate": written[40]["learning_rate"]}
    assert logged.told["tqdm"] == (60, 60, last)
    (bar,) = page["progress"].tasks
    assert bar.completed == bar.total == 60
    assert bar.fields["loss"] == pytest.approx(float(page["history"]["loss"][-1]), rel=1e-4)
