"""What front ends build graphs with: functions that add nodes to a ``Builder``, on values as PyTorch and ONNX see them."""
