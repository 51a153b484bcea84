"""The endpoint's serving code; copied flat into the container, imported as a package by training."""
