"""The build side: published and user-made clustering models, their checkpoints, and their export to ONNX.

Needs `pip install 'cluinfer[export]'`. Nothing heavy is imported until a function is called.
"""
