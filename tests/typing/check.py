# SPDX-License-Identifier: Apache-2.0
"""Pyright over the package, the examples, the client in strict mode, and the Python blocks of the README.

python tests/typing/check.py
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCKS = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def main() -> int:
    """Writes the blocks of the README as one module beside this file, where pyright's settings hold, and removes it."""
    readme = Path(__file__).with_name("_readme.py")
    readme.write_text("\n\n".join(BLOCKS.findall((ROOT / "README.md").read_text())))
    try:
        return subprocess.run([sys.executable, "-m", "pyright", "--pythonpath", sys.executable], cwd=ROOT).returncode
    finally:
        readme.unlink()


if __name__ == "__main__":
    sys.exit(main())
