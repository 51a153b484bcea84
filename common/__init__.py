"""Shared by all packages: errors, command lines, progress, storage, and deployed stacks."""
