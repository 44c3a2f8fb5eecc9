# SPDX-License-Identifier: Apache-2.0
"""The command: `python -m gradtx.race "adamw(1e-3)" "muon(2e-2)"`."""

from gradtx.race._command import main

if __name__ == "__main__":
    main()
