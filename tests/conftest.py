"""Makes `golden_cases` and `benchmarks` importable from every test.

Both folders go to the end of the path: an installed cluinfer must win over the checkout,
and `tests/cluinfer` must never be taken for the package.
"""

import sys
from pathlib import Path

TESTS = Path(__file__).parent

sys.path += [str(TESTS.parent), str(TESTS)]
