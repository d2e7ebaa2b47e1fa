"""cluinfer: deploy vision models that see by clustering, and keep their clusters visible.

This is the target side: importing it needs NumPy alone and does nothing else.
The build side (`cluinfer.export`, `cluinfer.calibration`) is imported by name.
"""

from cluinfer.errors import CluinferError

__version__ = "0.1.0"
__all__ = ["CluinferError", "__version__"]
