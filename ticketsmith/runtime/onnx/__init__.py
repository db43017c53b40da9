"""ONNX models: read, written, and probed for what mixes samples. Needs the package ``onnx``."""
