"""SAM 2.1 checkpoint ► two ONNX graphs ► a complete Triton model repository.

Only `export.repository` and `export.download` work without PyTorch; this module imports nothing.
"""
