"""Muon: momentum with orthogonalised updates, for the filters of convolutions.

The method is Keller Jordan's (2024, https://kellerjordan.github.io/posts/muon/); the weights are held at a
fixed norm, as in his CIFAR-10 speed runs.
"""

from collections.abc import Iterable

import torch

# Coefficients of the quintic Newton-Schulz iteration, from the post above: they are chosen for a steep slope
# at zero, and settle singular values between about 0.7 and 1.2 instead of exactly at 1.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_STEPS = 3


def orthogonalise(matrix: torch.Tensor) -> torch.Tensor:
    """Bring all singular values of a matrix near to one, keeping its singular vectors.

    Parameters
    ----------
    matrix : torch.Tensor
        Shape (rows, columns), floating point.

    Returns
    -------
    torch.Tensor
        The same shape.
    """
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    if tall:  # the smaller Gram matrix is cheaper
        x = x.T
    for _ in range(_STEPS):
        gram = x @ x.T
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum with orthogonalised updates.

    Parameters
    ----------
    filters : iterable of torch.nn.Parameter
        Convolution weights of shape (out, in, height, width).
    lr : float
        Step size; relative, since the weights have a norm of sqrt(out).
    momentum : float
        Between 0 and 1.
    """

    def __init__(self, filters: Iterable[torch.nn.Parameter], lr: float, momentum: float) -> None:
        super().__init__(filters, {"lr": lr, "momentum": momentum})

    def step(self, closure: None = None) -> None:
        """Apply one update to every filter that has a gradient."""
        with torch.no_grad():
            for group in self.param_groups:
                for weight in group["params"]:
                    if weight.grad is not None:
                        self._update(weight, group["lr"], group["momentum"])

    def _update(self, weight: torch.nn.Parameter, lr: float, momentum: float) -> None:
        velocity = self.state[weight].setdefault("velocity", torch.zeros_like(weight))
        velocity.mul_(momentum).add_(weight.grad)
        ahead = weight.grad.add(velocity, alpha=momentum)
        weight.mul_(len(weight) ** 0.5 / weight.norm())
        weight.add_(orthogonalise(ahead.flatten(1)).view_as(weight), alpha=-lr)
