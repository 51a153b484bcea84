"""AWS on this machine: the stack, its functions, its workflow and its endpoint, with no account and no Docker."""
