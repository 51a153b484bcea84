"""The numbers that decide how a model is trained. Those of one network only are in its module."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Hyper-parameters, chosen on validation data only.

    Probabilities, fractions and factors are between 0 and 1 unless stated otherwise; distances in an image are
    fractions of its edge; pixel values range from 0 to 1. Background images are those without a label.
    """

    # The module in training/fit/networks, and a name for these numbers.
    network: str
    name: str

    # Data
    input_size: int
    # A network that sees smaller images in training recognises smaller objects later, and trains faster (Touvron et al.
    # 2019, https://arxiv.org/abs/1906.06423). None: the input size.
    training_size: int | None = None
    # Folds of the training images; each is held out once.
    folds: int = 5
    # Hold out whole classes of background, so that validation shows what happens to kinds never trained on.
    folds_by_class: bool = False
    # Export the mean of the networks trained on all images and without each fold (Wortsman et al. 2022, "Model soups",
    # https://arxiv.org/abs/2203.05482). Only networks that begin with the same pretrained weights have a useful mean.
    averaged: bool = False
    # Background classes with at least this many images get an output of their own, ...
    min_background_class: int = 50
    # ... up to this many classes.
    max_background_classes: int = 100

    # Optimisation. An epoch shows every image with a label once.
    epochs: int
    batch_size: int = 64
    # Background images that are drawn for each batch, and how many of them become synthetic negatives.
    background_per_batch: int = 64
    synthetic_per_batch: int = 16
    # Weight of a background image in the loss, relative to 1 for an image with a label; and of telling the background
    # classes apart.
    background_weight: float = 1.0
    background_class_weight: float = 0.5
    warmup_fraction: float = 0.15
    label_smoothing: float = 0.05
    # Exponential moving average of the weights, per step; the exported model has these weights. 0: the last weights.
    ema_decay: float = 0.995

    # Export: whether the model also sees the mirror image; whether activations are 8-bit integers too, or weights only.
    mirrored: bool
    quantised_activations: bool

    # Calibration: total weight of the background images, relative to 1 for all images with a label.
    background_prior: float = 0.25
    # Keeps the network's own margin over background, shifted by this, instead of fitting it. None: fitted.
    gate_shift: float | None = None

    # Augmentation: the probability of each, then its range or maximum strength
    first_jpeg_quality: tuple[int, int] = (65, 85)
    jpeg_probability: float = 0.3
    jpeg_quality: tuple[int, int] = (40, 95)
    # Ways to enlarge an image that is smaller than the input.
    enlarging: tuple[str, ...] = ("bilinear",)
    move_probability: float = 0.8
    rotation_degrees: float = 15.0
    shear: float = 0.1
    shift: float = 0.06
    # The old frame's edge within the new one.
    scale: tuple[float, float] = (0.7, 1.25)
    far_probability: float = 0.15
    far_scale: float = 0.45
    aspect: float = 0.15
    colour_probability: float = 0.8
    brightness: float = 0.2
    contrast: float = 0.3
    saturation: float = 0.5
    tint: float = 0.05
    grey_probability: float = 0.1
    faint_probability: float = 0.1
    faint_contrast: tuple[float, float] = (0.2, 0.6)
    blur_probability: float = 0.25
    blur_sigma: float = 1.3
    # Unsharp masking.
    sharpen_probability: float = 0.0
    sharpen_strength: float = 1.5
    noise_probability: float = 0.25
    noise_sigma: float = 0.1
    # Sizes of the grains, in pixels.
    noise_grains: tuple[int, ...] = (1,)
