"""The training side: stage images, train a classifier, deploy it to a SageMaker endpoint."""
