"""The endpoint's serving code, which training and monitoring share."""
