"""The build side: published and user-made clustering models, their checkpoints, and their export to ONNX.

Needs `pip install 'cluinfer[export]'`.
"""

from cluinfer.export.load import load_model
from cluinfer.export.to_onnx import to_onnx

__all__ = ["load_model", "to_onnx"]
