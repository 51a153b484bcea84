"""Every number that decides how a model is trained, at one place."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters, chosen on validation data only.

    Probabilities, shares and factors are between 0 and 1 unless said otherwise; image distances are fractions
    of the image's edge; pixel values run from 0 to 1.
    """

    name: str = "residual-muon-3"

    # Data
    input_size: int = 32
    # Parts of the training images that take turns in being left out.
    folds: int = 5

    # Network
    widths: tuple[int, int, int] = (48, 96, 128)
    # Images whose 2x2 patches set the whitening layer.
    whitening_images: int = 2000
    # Kinds of other things with at least this many images get an output of their own, ...
    least_of_a_kind: int = 50
    # ... at most so many kinds.
    most_kinds: int = 100

    # Optimisation. An epoch shows every image of a label once.
    epochs: int = 180
    batch_size: int = 64
    # Images that are none of the labels, drawn afresh, that join each batch; and how many of them are textures.
    others_per_batch: int = 64
    textures_per_batch: int = 16
    # Weight of such an image in the loss, beside 1 for an image of a label; and of telling their kinds apart.
    other_weight: float = 1.0
    kind_weight: float = 0.5
    muon_rate: float = 0.16
    muon_momentum: float = 0.6
    sgd_rate: float = 0.05
    sgd_momentum: float = 0.85
    weight_decay: float = 5e-4
    warm_up_share: float = 0.15
    label_smoothing: float = 0.05
    # Decay per step of the running average of the weights, which is the model that ships.
    averaging_decay: float = 0.995

    # Calibration: what all other images together weigh, beside 1 for all images of labels.
    other_prior: float = 0.25

    # Augmentation: the probability of each, then its range or largest strength
    first_jpeg_quality: tuple[int, int] = (65, 85)
    jpeg_share: float = 0.3
    jpeg_quality: tuple[int, int] = (40, 95)
    move_share: float = 0.8
    rotation_degrees: float = 15.0
    shear: float = 0.1
    shift: float = 0.06
    # The old frame's edge within the new one.
    scale: tuple[float, float] = (0.7, 1.25)
    far_share: float = 0.15
    far_scale: float = 0.45
    aspect: float = 0.15
    colour_share: float = 0.8
    brightness: float = 0.2
    contrast: float = 0.3
    saturation: float = 0.5
    tint: float = 0.05
    grey_share: float = 0.1
    faint_share: float = 0.1
    faint_contrast: tuple[float, float] = (0.2, 0.6)
    blur_share: float = 0.25
    blur_sigma: float = 1.3
    noise_share: float = 0.25
    noise_sigma: float = 0.1
