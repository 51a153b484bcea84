"""Every number that decides how a model is trained, at one place."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters, chosen on validation data only.

    Probabilities, shares and factors are between 0 and 1 unless said otherwise; image distances are fractions
    of the image's edge; pixel values run from 0 to 1.
    """

    name: str = "residual-muon-1"

    # Data
    input_size: int = 32
    validation_share: float = 0.15
    # Images that are none of the labels, drawn afresh for every epoch.
    neither_per_epoch: int = 2500
    # Weight of such an image in the loss, beside 1 for an image of a label.
    neither_weight: float = 0.7

    # Network
    widths: tuple[int, int, int] = (32, 96, 96)
    # Images whose 2x2 patches set the whitening layer.
    whitening_images: int = 1000

    # Optimisation
    epochs: int = 60
    batch_size: int = 64
    muon_rate: float = 0.16
    muon_momentum: float = 0.6
    sgd_rate: float = 0.05
    sgd_momentum: float = 0.9
    weight_decay: float = 5e-4
    warm_up_share: float = 0.15
    label_smoothing: float = 0.1
    # Decay per step of the running average of the weights, which is the model that ships.
    averaging_decay: float = 0.99

    # Augmentation: the probability of each, then its largest strength
    affine_share: float = 0.7
    rotation_degrees: float = 15.0
    scale: float = 0.2
    shift: float = 0.15
    shear: float = 0.1
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    grey_share: float = 0.1
    jpeg_share: float = 0.4
    jpeg_quality: tuple[int, int] = (50, 95)
    coarse_share: float = 0.15
    coarse_size: tuple[int, int] = (18, 30)
    blur_share: float = 0.15
    blur_sigma: float = 1.0
    noise_share: float = 0.2
    noise_sigma: float = 0.06
