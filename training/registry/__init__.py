"""Register models, judge them, and approve them for an endpoint."""
