"""Logging of a training: CSV, TensorBoard, W&B, MLflow."""
