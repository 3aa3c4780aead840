"""The training loop and the model files."""
