"""Run a model behind a SageMaker endpoint."""
