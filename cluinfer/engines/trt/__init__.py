"""What the TensorRT engine, cluinfer/engines/tensorrt.py, is made of. Only graph.py needs onnx, and only to compile."""
