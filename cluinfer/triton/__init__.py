"""Online: an artifact as a model of Triton Inference Server, whose batching, queues and instances do the work.

The server answers with what `Runtime.run` gives, bit for bit. Its Python backend runs `model.py`, which holds a
runtime; an engine of TensorRT is served by the server itself. docs/triton.md says how to run it.
"""

from cluinfer.triton.config import Serving
from cluinfer.triton.write import Package, package

__all__ = ["Package", "Serving", "package"]
