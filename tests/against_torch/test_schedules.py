# SPDX-License-Identifier: Apache-2.0
"""The schedulers of PyTorch and the calls that the table of docs/schedules.md gives for them: the same rates."""

import re
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from support.public import NAMES

torch = pytest.importorskip("torch")

PAGE = Path(__file__).parent.parent.parent / "docs" / "schedules.md"
ROW = re.compile(r"^\| `(\w+\(.*?)` \| `(.*?)` \|", re.MULTILINE)
ROWS = ROW.findall(PAGE.read_text())
STEPS = 40
RATE = 0.1


def rates_of_torch(call: str) -> np.ndarray:
    """The rate at each step of an optimizer whose rate is 0.1, with the scheduler stepped after each."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its scheduler of schedulers calls them in a way that it warns of
        scheduler = eval(call, vars(torch.optim.lr_scheduler) | {"opt": optimizer})
        rates = []
        for _ in range(STEPS):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return np.asarray(rates)


@pytest.mark.parametrize(("theirs", "ours"), ROWS, ids=[call.partition("(")[0] for call, _ in ROWS])
def test_a_row(theirs: str, ours: str, x64: None):
    rates = jax.vmap(eval(ours, dict(NAMES)))(jnp.arange(float(STEPS)))
    np.testing.assert_allclose(rates, rates_of_torch(theirs), rtol=1e-9, atol=1e-15)


def test_every_scheduler_has_a_row():
    theirs = torch.optim.lr_scheduler
    names = {n for n, x in vars(theirs).items() if isinstance(x, type) and issubclass(x, theirs.LRScheduler)}
    names -= {"LRScheduler", "_LRScheduler", "ReduceLROnPlateau"}
    assert {call.partition("(")[0] for call, _ in ROWS} == names
    assert "`ReduceLROnPlateau`" in PAGE.read_text()
