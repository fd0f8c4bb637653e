"""What a run tells its loggers: CSV, TensorBoard, W&B."""
