"""Train in a SageMaker training job."""
