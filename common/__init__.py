"""What the packages share: errors, command lines, progress, storage, and the address of a deployed stack."""
