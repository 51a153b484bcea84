"""Work with a deployed stack: trace an image, review unsure ones, replay executions."""
