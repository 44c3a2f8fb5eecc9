# SPDX-License-Identifier: Apache-2.0
"""How far a race is: a bar by Rich or tqdm where there is one and somebody watches, else a line."""

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def bar(label: str, total: int) -> Iterator[Callable[[], Any]]:
    """A bar of `total` ticks on standard error, and the function that adds one."""
    watched = sys.stderr.isatty()
    if watched and _there("rich"):
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task(label, total=total)
            yield lambda: progress.advance(task)
    elif watched and _there("tqdm"):
        from tqdm import tqdm  # pyright: ignore[reportMissingModuleSource]  # optional

        with tqdm(total=total, desc=label, file=sys.stderr) as progress:
            yield progress.update
    else:
        began = time.monotonic()
        yield lambda: None
        print(f"{label}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def _there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
