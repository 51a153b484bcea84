"""From logits to calibrated probabilities."""

from dataclasses import dataclass

import torch
from torch.nn import functional

#: Scale and shift of the margin over background, see `Calibration`.
Gate = tuple[float, float]


@dataclass(frozen=True)
class Calibration:
    """Parameters of the two steps that turn logits into probabilities: which label, and whether it is one at all.

    The label logits are divided by `temperature` (Guo et al. 2017, https://arxiv.org/abs/1706.04599). The margin of
    all labels over background is scaled by `gate_scale`, shifted by `gate_shift`, and becomes a probability by the
    logistic function (Platt 1999, "Probabilistic outputs for support vector machines").
    """

    temperature: float = 1.0
    gate_scale: float = 1.0
    gate_shift: float = 0.0


def margin(logits: torch.Tensor, labels: int) -> torch.Tensor:
    """Return the margin of all labels over background, (n, 1), for logits (n, labels + 1)."""
    return logits[:, :labels].logsumexp(dim=1, keepdim=True) - logits[:, labels:]


def probabilities(logits: torch.Tensor, labels: int, calibration: Calibration) -> torch.Tensor:
    """Turn logits that `training.fit.network.merge_background` returned into probabilities (n, labels).

    Their sum is at most one.
    """
    which = torch.softmax(logits[:, :labels] / calibration.temperature, dim=1)
    if logits.shape[1] == labels:
        return which
    gate = torch.sigmoid(margin(logits, labels) * calibration.gate_scale + calibration.gate_shift)
    return which * gate


def fit_gate(logits: torch.Tensor, targets: torch.Tensor, labels: int, background_prior: float) -> Gate:
    """Fit the gate with the least negative log-likelihood.

    Parameters
    ----------
    logits : torch.Tensor
        Shape (n, labels + 1).
    targets : torch.Tensor
        Shape (n,), some of them a label and some background.
    labels : int
        How many outputs are labels.
    background_prior : float
        Total weight of the background images, relative to 1 for all images with a label.

    Returns
    -------
    tuple of float
        `Calibration.gate_scale` and `Calibration.gate_shift`.
    """
    known = targets < labels
    near, far = (margin(logits[which], labels).double() for which in (known, ~known))
    # Platt's targets, slightly below 1 and above 0, keep the fit finite where the two groups do not overlap.
    yes, no = (len(near) + 1) / (len(near) + 2), 1 / (len(far) + 2)
    fitted = torch.tensor([1.0, 0.0], dtype=torch.double, requires_grad=True)
    optimiser = torch.optim.LBFGS([fitted], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        near_logits, far_logits = (margins * fitted[0] + fitted[1] for margins in (near, far))
        value = functional.binary_cross_entropy_with_logits(near_logits, torch.full_like(near, yes))
        far_loss = functional.binary_cross_entropy_with_logits(far_logits, torch.full_like(far, no))
        value = value + background_prior * far_loss
        value.backward()
        return value

    optimiser.step(loss)
    scale, shift = fitted.tolist()
    return scale, shift


def fit_calibration(
    logits: torch.Tensor, targets: torch.Tensor, labels: int, background_prior: float, gate: Gate | None = None
) -> Calibration:
    """Fit the calibration with the least negative log-likelihood.

    Parameters
    ----------
    logits : torch.Tensor
        Shape (n, labels + 1), or (n, labels) without background.
    targets : torch.Tensor
        Shape (n,), at least one of them a label.
    labels : int
        How many outputs are labels.
    background_prior : float
        As for `fit_gate`.
    gate : tuple of float, optional
        Taken as it is; only the temperature is fitted.

    Returns
    -------
    Calibration
        For `probabilities`.
    """
    known = targets < labels
    label_logits, label_targets = logits[known][:, :labels], targets[known]
    candidates = torch.logspace(-1.5, 1, 500)
    losses = torch.stack([functional.cross_entropy(label_logits / t, label_targets) for t in candidates])
    temperature = float(candidates[losses.argmin()])
    if gate is None and logits.shape[1] > labels and not known.all():
        gate = fit_gate(logits, targets, labels, background_prior)
    return Calibration(temperature, *(gate or ()))


def cross_fit(
    logits: torch.Tensor,
    targets: torch.Tensor,
    fold: torch.Tensor,
    labels: int,
    background_prior: float,
    gate: Gate | None = None,
) -> torch.Tensor:
    """Return probabilities (n, labels) from calibrations fitted without the fold (n,) of the image."""
    result = torch.empty(len(targets), labels)
    for held_out in fold.unique():
        inside = fold != held_out
        calibration = fit_calibration(logits[inside], targets[inside], labels, background_prior, gate)
        result[~inside] = probabilities(logits[~inside], labels, calibration)
    return result
