"""SAM 2.1 checkpoint ► ONNX graphs ► a complete Triton model repository.

Only `export.repository` and `export.download` work without PyTorch; this module imports nothing of theirs.
"""

import os

# Before any of them is imported: ONNX Runtime from 1.29 on, and Hugging Face's libraries, report to their
# makers unless told otherwise. Here, since whatever exports passes through this module first.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
