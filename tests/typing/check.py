# SPDX-License-Identifier: Apache-2.0
"""Pyright over the package, the examples, clients in strict mode, and the Python blocks of the README.

The blocks of docs/write_your_own.md, too, are checked in strict mode, but for the annotations that they do without.
Basedpyright, which people use as well, checks the clients and the blocks, where it is installed.

python tests/typing/check.py
"""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCKS = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
NOT_ANNOTATED = [f"reportUnknown{kind}Type=false" for kind in ("Argument", "Lambda", "Member", "Parameter", "Variable")]
PAGES = {
    "README.md": "",
    "docs/write_your_own.md": f"# pyright: strict, reportMissingParameterType=false, {', '.join(NOT_ANNOTATED)}\n",
}


def checked(checker: str, *paths: str) -> bool:
    if not importlib.util.find_spec(checker):
        print(f"NOT INSTALLED: {checker}")
        return checker != "pyright"
    print(checker, flush=True)
    command = [sys.executable, "-m", checker, "--pythonpath", sys.executable, "--warnings", *paths]
    return subprocess.run(command, cwd=ROOT).returncode == 0


def main() -> int:
    """Writes the blocks of a page as one module beside this file, where pyright's settings hold, and removes it."""
    modules = {Path(__file__).with_name(f"_{Path(page).stem.lower()}.py"): page for page in PAGES}
    for module, page in modules.items():
        module.write_text(PAGES[page] + "\n\n".join(BLOCKS.findall((ROOT / page).read_text())))
    try:
        passed = [checked("pyright"), checked("basedpyright", "tests/typing")]
    finally:
        for module in modules:
            module.unlink()
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
