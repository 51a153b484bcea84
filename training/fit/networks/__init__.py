"""The networks, one per module. A module has a `RECIPE`, and a function `create` that takes the numbers of outputs and
of labels, and the recipe.
"""

import pkgutil


def network_names() -> list[str]:
    """List the networks as ``--network`` takes them. Needs no torch."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))
