"""The settings of every stage.

A stage's settings are one frozen dataclass: the library takes it, the command line builds its
options from it, a recipe of `configs/` fills it (`pipeline.recipes`). The docstring under a field
is its help text.
Nothing here imports numpy or torch, so that `--help` answers at once.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pipeline.errors import ConfigError

Grid = tuple[float, ...]
"""Temperatures, in the order in which they are tried."""

Channels = tuple[float, float, float]
"""One number each for red, green and blue."""

Config = TypeVar("Config", bound="ExtractConfig | FitConfig | SweepConfig")


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
    """Training images, drawn so that classes are equally frequent, over which the statistics of
    BatchNorm are estimated anew before the extraction; 0 keeps the checkpoint's."""

    views: int = 0
    """Seeded augmented views (random crop and flip) stored for each training image."""

    view_seed: int = 0
    """Seed of the views; a view depends on this seed, its number and the image's id alone."""

    view_padding: int = 4
    """Pixels of padding around the image before a view's random crop."""

    view_fill: Literal["mean", "black"] = "mean"
    """Colour of that padding: the normalisation's mean, or black as in most training code."""

    view_flip: bool = True
    """Mirror a view left to right with probability one half."""

    dtype: Literal["float32", "float16"] = "float32"
    """Type of the stored features; float16 halves the store, logits stay float32."""

    logits: Literal["full", "recompute"] = "full"
    """Store the old logits, or recompute them from features and old head when they are read."""

    device: str = "auto"
    """`auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:K`."""

    batch_size: int = 256
    """Images in one forward pass."""

    shard_rows: int = 2048
    """Rows that are computed and made durable as one unit; an interruption loses at most these."""

    workers: int = -1
    """Processes that read images; 0 reads in the main process, -1 chooses by the machine."""

    channels_last: bool = False
    """Run convolutions in the channels-last memory format."""

    autocast: Literal["none", "bfloat16"] = "none"
    """Run the forward pass under automatic mixed precision."""

    strict: bool = False
    """Stop at the first unreadable image instead of marking its row as failed."""

    def __post_init__(self) -> None:
        """Refuse values that no extraction could use."""
        _check_choices(self)
        # A deviation of 0 would divide by 0.
        _check_channels("mean", self.mean, lowest=0.0)
        _check_channels("std", self.std, lowest=1e-6)
        for name, pixels in (("resize", self.resize), ("crop", self.crop)):
            _require(name, pixels, pixels is None or pixels >= 1, "1 or more")
        _require("recalibrate_bn", self.recalibrate_bn, self.recalibrate_bn >= 0, "0 or more")
        _require("views", self.views, self.views >= 0, "0 or more")
        _require("view_padding", self.view_padding, self.view_padding >= 0, "0 or more")
        _require("batch_size", self.batch_size, self.batch_size >= 1, "1 or more")
        _require("shard_rows", self.shard_rows, self.shard_rows >= 1, "1 or more")
        _require("workers", self.workers, self.workers >= -1, "0 or more, or -1 to choose")
        _check_device(self.device)


@dataclass(frozen=True)
class FitConfig:
    """How `fit-head` re-trains the linear head; the defaults suit features without views."""

    loss: Literal["gml", "cross-entropy", "balanced-softmax"] = "gml"
    """Geometric Mean Loss, or one of the two losses to compare it with."""

    sampler: Literal["instance", "class-balanced", "class-aware"] = "instance"
    """How mini-batches are drawn from the training rows."""

    samples_per_class: int = 4
    """Rows of each chosen class in a class-aware mini-batch."""

    epochs: int = 10
    """Passes over the training rows (or as many steps, for the other samplers)."""

    batch_size: int = 128
    """Rows in one step."""

    lr: float = 0.1
    """Learning rate of the first step; it falls to 0 along a cosine."""

    momentum: float = 0.9
    """Momentum of SGD."""

    weight_decay: float = 2e-4
    """Weight decay of SGD, on weight and bias."""

    views: bool = True
    """Draw each row's features at random from its clean image and its stored views."""

    seed: int = 0
    """Seed of the initial head, of the mini-batches and of the drawn views."""

    memory: str | None = None
    """Most memory of the whole process, as 2GiB; larger features are read from a scratch file in
    the temporary folder (TMPDIR), with the same result. Not set: all are held in memory."""

    device: str = "cpu"
    """`cpu`, `cuda`, `cuda:K` or `auto`; a small head is fitted fastest on the CPU."""

    def __post_init__(self) -> None:
        """Refuse values that no fit could use."""
        _check_choices(self)
        _require("epochs", self.epochs, self.epochs >= 1, "1 or more")
        _require("batch_size", self.batch_size, self.batch_size >= 1, "1 or more")
        _require(
            "samples_per_class", self.samples_per_class, self.samples_per_class >= 1, "1 or more"
        )
        _require("lr", self.lr, 0 < self.lr < math.inf, "above 0")
        _require("momentum", self.momentum, 0 <= self.momentum < 1, "from 0 to below 1")
        _require("weight_decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "0 or more")
        _require("seed", self.seed, 0 <= self.seed < 2**63, "from 0 to 2^63 - 1")
        if self.memory is not None:
            parse_size(self.memory)
        _check_device(self.device)
        if self.sampler == "class-aware":
            _require(
                "samples_per_class", self.samples_per_class,
                self.samples_per_class <= self.batch_size, "at most the batch size",
            )  # fmt: skip


LARGEST_GRID = 1000
"""Temperatures of one head; more are a slip, and a thousand by a thousand take minutes already."""

DEFAULT_GRID: Grid = tuple(2.0 ** (k / 4) for k in range(-8, 17))
"""1/4 to 16 in steps of 2^(1/4): 25 temperatures, among them exactly 1, 2, 4 and 8."""


@dataclass(frozen=True)
class SweepConfig:
    """Which temperatures `sweep-temps` tries, and on which split."""

    t_old: Grid = field(default=DEFAULT_GRID)
    """Temperatures of the old head (eq. 13): `1,2,3`, or `start:stop:count` (geometric)."""

    t_new: Grid = field(default=DEFAULT_GRID)
    """Temperatures of the new head (eq. 12): `1,2,3`, or `start:stop:count` (geometric)."""

    split: str = "auto"
    """Split to measure on; `auto` is `val` where the store has it, else `test`."""

    choose: Literal["harmonic-mean", "nll"] = "harmonic-mean"
    """Choose the best cell of the plane, or calibrate each head on its own by its likelihood."""

    cross_fit: int = 0
    """Choose on all but one of this many folds and score on that one; the way to choose without a
    `val` split (`auto` is `test` then). 0 does not."""

    refine: int = 0
    """Rounds of finer temperatures around the best cell, and of further ones beyond an edge."""

    weights: Grid | None = None
    """Weights of the old and of each new head in the ensemble; not set: all equal."""

    calibration: bool = False
    """Also measure the ensemble's negative log-likelihood and calibration error in every cell."""

    replicates: int = 1000
    """Bootstrap replicates for intervals and for the region within the noise; 0 leaves them out."""

    seed: int = 0
    """Seed of folds and bootstrap."""

    device: str = "cpu"
    """`cpu`, `cuda`, `cuda:K` or `auto`; the plane is exact on each."""

    threads: int = 0
    """Threads of the sweep on a CPU; 0 is one for each core."""

    memory: int = 1024
    """Memory in MiB for a sweep, whatever the store's size; hits beyond half of it go to disk."""

    def __post_init__(self) -> None:
        """Refuse settings that no sweep could use."""
        _check_choices(self)
        for name, grid in (("t_old", self.t_old), ("t_new", self.t_new)):
            fits = len(grid) > 0 and all(0 < t < math.inf for t in grid)
            _require(name, ",".join(map(str, grid)), fits, "one or more temperatures above 0")
        fits = self.weights is None or all(0 < w < math.inf for w in self.weights)
        _require("weights", self.weights, fits, "numbers above 0, one for each head")
        for name in ("refine", "replicates", "seed", "threads"):
            _require(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        folds = self.cross_fit
        _require("cross_fit", folds, folds == 0 or folds > 1, "2 folds or more, or 0")
        fits = not (self.cross_fit and self.refine)
        # The finer grid would lie where all labels, the held-out ones too, want it.
        _require("refine", self.refine, fits, "0 with cross_fit, where no fold may steer the grid")
        _require("memory", self.memory, self.memory >= 256, "256 MiB or more")  # noqa: PLR2004
        _check_device(self.device)


def parse_size(text: str) -> int:
    """Bytes from `500MB`, `2GiB` and the like.

    Raises:
        ConfigError: if the text has no such form.
    """
    found = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([KMGT]?)(i?)B", text, re.IGNORECASE)
    if found is None or not float(found[1]):
        raise ConfigError(f"{text!r} is no size: give a number and a unit, as 2GiB or 500MB.")
    thousands = "KMGT".find(found[2].upper()) + 1 if found[2] else 0
    return int(float(found[1]) * (1024 if found[3] else 1000) ** thousands)


def parse_grid(text: str, what: str = "temperature grid") -> Grid:
    """Temperatures from `1,2,3` or from `start:stop:count`, evenly spaced in their logarithm.

    Raises:
        ConfigError: if the text has neither form, or a temperature is not positive.
    """
    try:
        if ":" not in text:
            grid = tuple(float(part) for part in text.split(","))
        else:
            first, last, number = text.split(":")
            start, stop, count = float(first), float(last), int(number)
            if not (2 <= count <= LARGEST_GRID and 0 < start < stop < math.inf):  # noqa: PLR2004  # two ends
                raise ValueError
            # 12 digits keep a round value such as 1 exact where the grid meets it.
            grid = tuple(
                float(f"{start * (stop / start) ** (k / (count - 1)):.12g}") for k in range(count)
            )
        if not all(0 < t < math.inf for t in grid):
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"{text!r} is no {what}: give up to {LARGEST_GRID} values above 0, as 1,2,3 "
            "or as start:stop:count."
        ) from None
    return grid


def build_config(
    settings: type[Config], recipe: Mapping[str, Any] | None = None, **given: Any
) -> Config:
    """Settings of one stage: `given` values first, then the recipe's, then the defaults.

    Args:
        settings: one of the classes in `SECTIONS`.
        recipe: the stage's section of a recipe.
        given: values set by the caller; `None` means not set.

    Raises:
        ConfigError: if a key is unknown or a value has the wrong type or range.
    """
    values = {**(recipe or {}), **{k: v for k, v in given.items() if v is not None}}
    refuse_unknown(values, [f.name for f in dataclasses.fields(settings)], settings.__name__)
    hints = get_type_hints(settings)
    return settings(**{key: _coerce(key, value, hints[key]) for key, value in values.items()})


def field_help(settings: type[Any]) -> Mapping[str, str]:
    """Help text of every field: the docstring that stands under it in the source."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(settings))).body
    if not isinstance(body, ast.ClassDef):
        raise TypeError(f"{settings!r} is not a class")
    texts = {}
    for statement, following in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            texts[statement.target.id] = inspect.cleandoc(str(following.value.value))
    return texts


def refuse_unknown(values: Mapping[Any, Any], known: list[str], where: str) -> None:
    """Raise `ConfigError` on keys that nobody would read."""
    unknown = [str(key) for key in values if key not in known]
    if unknown:
        raise ConfigError(
            f"{where}: unknown key {', '.join(map(repr, unknown))}; known are {', '.join(known)}."
        )


def _coerce(name: str, value: Any, hint: Any) -> Any:
    """A value from YAML or the command line as the field's type; `1e-4` is text to YAML."""
    hint = value_type(hint)
    try:
        if hint == Grid and isinstance(value, str):
            return parse_grid(value, "list of weights" if name == "weights" else "temperature grid")
        if get_origin(hint) is tuple:
            return tuple(float(x) for x in (value.split(",") if isinstance(value, str) else value))
        if hint is float and not isinstance(value, bool):
            return float(value)
    except (TypeError, ValueError):
        pass  # told below, like every other wrong type
    expected = type(get_args(hint)[0]) if get_origin(hint) is Literal else hint
    # bool is a subclass of int, but `epochs: true` is a slip.
    if (
        get_origin(hint) is tuple
        or not isinstance(value, expected)
        or (isinstance(value, bool) and expected is not bool)
    ):
        raise ConfigError(f"{name} must be {_type_name(hint)}, not {value!r}.")
    return value


def value_type(hint: Any) -> Any:
    """Type of a field's value where one is given: `X` for the annotation `X | None`."""
    given = [part for part in get_args(hint) if part is not type(None)]
    is_union = isinstance(hint, UnionType) or get_origin(hint) is Union
    return given[0] if is_union and len(given) == 1 else hint


def _type_name(hint: Any) -> str:
    """A field's type in words."""
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return words.get(hint, "a list of numbers")


def _check_device(name: str) -> None:
    """Refuse what is no device's name; whether it is there shows when it is used."""
    fits = name in {"auto", "cpu", "cuda"} or (name.startswith("cuda:") and name[5:].isdigit())
    _require("device", name, fits, "auto, cpu, cuda or cuda:K")


def _check_channels(name: str, values: tuple[float, ...] | None, lowest: float) -> None:
    """Refuse normalisation constants that are not three fractions of the range of x/255."""
    if values is not None:
        fits = len(values) == 3 and all(lowest <= x <= 1 for x in values)  # noqa: PLR2004  # R, G, B
        _require(name, values, fits, "three numbers from 0 to 1, as 0.5,0.5,0.5")


def _check_choices(config: object) -> None:
    """Refuse a value that is not among its field's literal choices."""
    for name, hint in get_type_hints(type(config)).items():
        choices = value_type(hint)
        value = getattr(config, name)
        if get_origin(choices) is Literal and not (value is None and choices is not hint):
            _require(name, value, value in get_args(choices), _type_name(choices))


def _require(name: str, value: object, fits: bool, needed: str) -> None:
    """Raise one sentence where a value does not fit."""
    if not fits:
        raise ConfigError(f"{name} must be {needed}, not {value}.")
