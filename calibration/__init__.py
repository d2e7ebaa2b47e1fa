"""The build side of int8 and fp16: calibration, the placement of Q/DQ pairs, the search for what to leave in float.

Needs `pip install 'cluinfer[export]'`.
"""

from cluinfer.calibration.calibrate import Calibrated, calibrate
from cluinfer.calibration.frontier import Bounds, Frontier
from cluinfer.calibration.half import to_half
from cluinfer.calibration.subject import Settings

__all__ = ["Bounds", "Calibrated", "Frontier", "Settings", "calibrate", "to_half"]
