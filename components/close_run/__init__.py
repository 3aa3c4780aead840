"""close-run: what Kubeflow runs after the nine steps, however they ended."""
