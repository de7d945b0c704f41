"""Finished runs from where teams have them: tables, TensorBoard, MLflow, W&B, other studies."""
