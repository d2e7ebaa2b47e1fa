"""Calibration and quantization of exported graphs; see the CHANGELOG for what is there yet."""
