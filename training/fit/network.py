"""What training needs of a network, whichever it is."""

from abc import ABC, abstractmethod
from importlib import import_module
from typing import Any

import torch
from torch import nn

from training.fit.data import Images
from training.fit.recipe import Recipe


class Network(nn.Module, ABC):
    """Maps images (batch, 3, edge, edge), 0 to 1, to logits: one per label, then one or more for background."""

    @abstractmethod
    def activations(self, x: torch.Tensor) -> torch.Tensor:
        """Map images to the last convolution's output, (batch, width, rows, columns)."""

    @abstractmethod
    def pool(self, activations: torch.Tensor) -> torch.Tensor:
        """Map activations to what the last layer gets, (batch, width)."""

    @abstractmethod
    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Map features to logits (batch, outputs)."""

    @abstractmethod
    def optimisers(self) -> list[torch.optim.Optimizer]:
        """Create the optimisers, which together train every parameter that is trained."""

    def activation_maps(self, activations: torch.Tensor, features: torch.Tensor) -> torch.Tensor | None:
        """Return how much each position raises each label's logit, (batch, labels, rows, columns).

        That is the derivative of the logit by the features, times the activations there. None if the features are not
        the mean over all positions.
        """
        return None

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Map images to what the last layer gets, (batch, width)."""
        return self.pool(self.activations(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits(self.features(x))

    def prepare(self, images: Images, generator: torch.Generator) -> None:
        """Adapt the new network to the training images, before the first step."""

    def penalty(self, x: torch.Tensor, features: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
        """Return what is added to the loss of a batch, given which of its images (n,) are background."""
        return features.new_zeros(())

    def finish(self, images: Images) -> None:
        """Complete the trained network, after the last step."""


def _module(name: str) -> Any:
    return import_module(f"training.fit.networks.{name.replace('-', '_')}")


def load_recipe(name: str) -> Recipe:
    """Return the recipe of a network, one of `training.fit.networks.network_names`."""
    recipe: Recipe = _module(name).RECIPE
    return recipe


def create_network(outputs: int, labels: int, recipe: Recipe) -> Network:
    """Create the recipe's network.

    Parameters
    ----------
    outputs, labels : int
        The number of labels and background classes together, and that of the labels.
    recipe : Recipe
        Names the network.
    """
    network: Network = _module(recipe.network).NETWORK(outputs, labels, recipe)
    return network


def merge_background(logits: torch.Tensor, labels: int) -> torch.Tensor:
    """Merge the logits of all background classes into one.

    Parameters
    ----------
    logits : torch.Tensor
        Shape (n, outputs): one per label, then one per background class, if any.
    labels : int
        How many outputs are labels.

    Returns
    -------
    torch.Tensor
        Shape (n, labels + 1), or (n, labels) without background. A softmax gives the labels the same probabilities
        as a softmax over all outputs.
    """
    if logits.shape[1] == labels:
        return logits
    return torch.cat([logits[:, :labels], logits[:, labels:].logsumexp(dim=1, keepdim=True)], dim=1)
