"""Graphs in ONNX against scikit-learn, over the port that serving uses."""
