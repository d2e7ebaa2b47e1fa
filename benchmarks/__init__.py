"""Baselines and measurements; nothing here is installed.

`python -m benchmarks` looks in the checkout first. It goes last, so that what is measured is the installed cluinfer:
the sources have no native operators beside them.
"""

import sys
from pathlib import Path

if sys.path[0] == str(Path(__file__).parent.parent):
    sys.path.append(sys.path.pop(0))
