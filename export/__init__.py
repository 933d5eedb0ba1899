"""SAM 2.1 checkpoint ► ONNX graphs ► a complete Triton model repository.

Only `export.repository` and `export.download` work without PyTorch; this module imports nothing.
"""
