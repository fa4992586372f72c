"""The files of a training: the trained classifier, and what an unfinished one goes on from.

Both are files of `torch.save` that hold tensors and plain values alone, so that they load with
`weights_only=True`. The unfinished one is written whole after each epoch, under its own name:
nothing loads a half-trained network by mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline.checkpoints.own import FORMAT, VERSION
from pipeline.errors import TrainingError

UNFINISHED_FORMAT = "nolb unfinished training"

FREE_FIELDS = ("workers", "memory", "evaluate_every")
"""Settings that change no weight: a training may go on with others."""


def unfinished_path(out: Path) -> Path:
    """Where the training of a checkpoint keeps its state until it is complete."""
    return out.with_name(f"{out.name}.unfinished")


def read_file(path: Path, expected: str) -> dict[str, Any]:
    """The content of one of our files, every tensor on the CPU.

    Args:
        path: the file.
        expected: its format.

    Raises:
        TrainingError: if it is damaged, or something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make torch raise nearly anything
        raise TrainingError(
            f"{path} is damaged or no file of nolb pretrain: begin anew with --overwrite."
        ) from error
    if not isinstance(content, dict) or content.get("format") != expected:
        raise TrainingError(
            f"{path} is something else than a file of nolb pretrain: give another name."
        )
    if content.get("version") != VERSION:
        raise TrainingError(
            f"{path} was written by another version of nolb: begin anew with --overwrite."
        )
    return content


def is_ours(path: Path) -> bool:
    """Whether a file is one that a training wrote, and another may replace."""
    for expected in (FORMAT, UNFINISHED_FORMAT):
        try:
            read_file(path, expected)
        except TrainingError:
            continue
        return True
    return False


def require_same(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to go on with a training that was begun otherwise.

    Args:
        path: the file that it would go on from.
        found: what that training was made of.
        wanted: what this one is made of.

    Raises:
        TrainingError: naming what differs.
    """
    differing = [
        f"{name} ({found.get(name)!s} there, {wanted.get(name)!s} now)"
        for name in dict.fromkeys((*found, *wanted))
        if found.get(name) != wanted.get(name)
    ]
    if differing:
        raise TrainingError(
            f"{path} is of a training with other settings: {', '.join(differing)}. Go on with "
            "those, give another name, or begin anew with --overwrite."
        )
