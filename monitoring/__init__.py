"""Monitor the endpoint's requests and predictions: captured data, drift, reports."""
