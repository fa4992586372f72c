"""How images become features and old logits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pipeline.config.checks import check_channels, check_choices, check_device, require
from pipeline.config.unused import Above, Cause, only_with

Channels = tuple[float, float, float]
"""One number each for red, green and blue."""

MOST_TEST_VIEWS = {True: 17, False: 8}
"""Nine places, the clean image's among them, with and without a mirror image at each."""


def _one_coloured_view(config: ExtractConfig) -> tuple[Cause, ...]:
    """Why --view-erase erases nothing: views take turns, and the first gets other colours."""
    if config.views == 1 and config.view_colour:
        return (Cause("views", config.views, Above(1)),)
    return ()


def _no_shifted_test_view(config: ExtractConfig) -> tuple[Cause, ...]:
    """Why --test-view-shift moves nothing: the first test view is the mirror image."""
    not_moved = 1 if config.view_flip else 0
    if config.test_views <= not_moved:
        return (Cause("test_views", config.test_views, Above(not_moved)),)
    return ()


@dataclass(frozen=True)
class ExtractConfig:
    """How `extract` turns images into features and old logits."""

    model: str = "auto"
    """Family or FAMILY:BACKBONE of the file (`auto` finds it), or a model by name:
    torchvision/NAME, timm/NAME, efficientnet-lite0 or PACKAGE.MODULE:FACTORY."""

    mean: Channels | None = None
    """Mean of x/255 in R,G,B that normalisation subtracts; not set: the checkpoint family's own."""

    std: Channels | None = None
    """Deviation of x/255 in R,G,B that normalisation divides by; not set: the family's own."""

    resize: int | None = None
    """Shorter side, in pixels, to resize to; not set: the family's own rule."""

    crop: int | None = None
    """Side, in pixels, of the centre crop that follows; not set: the family's own rule."""

    squash: bool = False
    """Resize both sides to --resize, so that nothing is cropped away; proportions change."""

    interpolation: Literal["bilinear", "bicubic"] | None = None
    """How the resize weighs pixels; not set: the family's own way."""

    channels: Literal["RGB", "BGR"] | None = None
    """Order in which the model takes the channels; not set: the family's own."""

    features_only: bool = False
    """Keep no old head, where the model's own is for other classes than the images."""

    recalibrate_bn: int = 0
    """Training images over which the statistics of BatchNorm are estimated anew before the
    extraction; 0 keeps the checkpoint's. Worth a try where the network was trained with mixup:
    its statistics are then of mixed images."""

    recalibrate_bn_sampler: Literal["instance", "class-balanced"] = field(
        default="instance", metadata=only_with(recalibrate_bn=Above(0))
    )
    """How those images are drawn: as frequent as the classes are, or all classes alike."""

    views: int = 0
    """Seeded augmented views (random crop and flip) stored for each training image."""

    view_seed: int = field(default=0, metadata=only_with(views=Above(0), recalibrate_bn=Above(0)))
    """Seed of the views; a view depends on this seed, its number and the image's id alone."""

    view_padding: int = field(default=4, metadata=only_with(views=Above(0)))
    """Pixels of padding around the image before a view's random crop."""

    view_fill: Literal["mean", "black"] = field(
        default="mean",
        metadata=only_with(view_padding=Above(0), view_erase=Above(0), test_view_shift=Above(0)),
    )
    """Colour of that padding: the normalisation's mean, or black as in most training code."""

    view_flip: bool = field(default=True, metadata=only_with(views=Above(0), test_views=Above(0)))
    """Mirror a view left to right with probability one half; every other test view is mirrored."""

    view_colour: float = field(default=0.0, metadata=only_with(views=Above(0)))
    """Change brightness, contrast and saturation of a view by up to this share, as 0.4."""

    view_erase: int = field(
        default=0, metadata=only_with(views=Above(0), unless=_one_coloured_view)
    )
    """Hide a square of a view, of so many pixels a side; with --view-colour, views take turns."""

    test_views: int = 0
    """Fixed views stored for each image of every other split: the mirror image, then both moved in
    all directions. 1 is the flip test; 7 make eight images with the clean one. Scores are then
    those of the mean feature."""

    test_view_shift: int = field(default=2, metadata=only_with(unless=_no_shifted_test_view))
    """Pixels by which test views move."""

    dtype: Literal["float32", "float16"] = "float32"
    """Type of the stored features; float16 halves the store, logits stay float32."""

    logits: Literal["full", "recompute"] = field(
        default="full", metadata=only_with(features_only=False)
    )
    """Store the old logits, or recompute them from features and old head when they are read."""

    device: str = "auto"
    """`auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:K`."""

    batch_size: int = 256
    """Images in one forward pass."""

    shard_rows: int = 2048
    """Rows that are computed and made durable as one unit; an interruption loses at most these."""

    workers: int = -1
    """Processes that read images; 0 reads in the main process, -1 chooses by the machine."""

    decode: Literal["cpu", "device"] = "cpu"
    """Where JPEG files are decoded, resized and cropped: by the reading processes, or on a CUDA
    device (`device`), which leaves the readers little to do. Pixels differ slightly between the
    two, so the store says so. Other files stay with the readers; views need `cpu`."""

    channels_last: bool = False
    """Run convolutions in the channels-last memory format."""

    autocast: Literal["none", "bfloat16"] = "none"
    """Run the forward pass under automatic mixed precision."""

    strict: bool = False
    """Stop at the first unreadable image instead of marking its row as failed."""

    def __post_init__(self) -> None:
        """Refuse values that no extraction could use."""
        check_choices(self)
        # A deviation of 0 would divide by 0.
        check_channels("mean", self.mean, lowest=0.0)
        check_channels("std", self.std, lowest=1e-6)
        for name, pixels in (("resize", self.resize), ("crop", self.crop)):
            require(name, pixels, pixels is None or pixels >= 1, "1 or more")
        require("recalibrate_bn", self.recalibrate_bn, self.recalibrate_bn >= 0, "0 or more")
        require("views", self.views, self.views >= 0, "0 or more")
        require("view_padding", self.view_padding, self.view_padding >= 0, "0 or more")
        require("view_colour", self.view_colour, 0 <= self.view_colour <= 1, "from 0 to 1")
        require("view_erase", self.view_erase, self.view_erase >= 0, "0 or more")
        most = MOST_TEST_VIEWS[self.view_flip]
        mirrored = "" if self.view_flip else " without mirror images (view_flip)"
        fits = 0 <= self.test_views <= most
        require("test_views", self.test_views, fits, f"0 to {most}{mirrored}")
        require("test_view_shift", self.test_view_shift, self.test_view_shift >= 1, "1 or more")
        require("batch_size", self.batch_size, self.batch_size >= 1, "1 or more")
        require("shard_rows", self.shard_rows, self.shard_rows >= 1, "1 or more")
        require("workers", self.workers, self.workers >= -1, "0 or more, or -1 to choose")
        check_device(self.device)
        here = self.decode == "cpu"
        viewless = not (self.views or self.test_views)
        require("decode", self.decode, here or viewless, "cpu where views or test_views are made")
        require("decode", self.decode, here or self.device != "cpu", "cpu where the device is cpu")
