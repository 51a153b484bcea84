"""The networks, one per module. A module has a `RECIPE` and a `NETWORK`, a class that takes the number of outputs, the
number of labels, and the recipe.
"""

import pkgutil


def network_names() -> list[str]:
    """List the networks as ``--network`` takes them. Needs no torch."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))
