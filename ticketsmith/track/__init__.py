"""Sealed experiments in an experiment tracker: MLflow, Weights & Biases, Trackio, TensorBoard. Nothing is trained here."""
