"""The user's own checkpoint with the new head in the old classifier's place."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from pipeline.checkpoints import TrainedModel, load_checkpoint
from pipeline.checkpoints.payload import read_payload
from pipeline.errors import CheckpointError, ExportError
from pipeline.heads import Head


def patch_checkpoint(model: TrainedModel, head: Head, path: Path) -> tuple[str, ...]:
    """Write a copy of the model's checkpoint whose classifier is the new head.

    The classifier's tensors are found in the file by their values, so this needs to know nothing
    of the family; every copy of them is replaced (a best and a last state may hold the same). All
    else stays as it was read: names, order, types, training state. Tensors that were on a GPU are
    on the CPU.

    Args:
        model: what the checkpoint turned into.
        head: the re-trained head.
        path: file to write, in the format of the checkpoint.

    Returns:
        Names of the tensors that were replaced, as `state_dict.model.fc.weight`.

    Raises:
        ExportError: if the classifier is not an ordinary linear layer with a bias in the file, or
            the new head is none.
        CheckpointError: if the file cannot be read.
    """
    _require_linear(model)
    if head.normalized:
        raise ExportError(
            "The new head brings features to length 1 first, which the linear layer of "
            f"{model.source} does not. Export another format: safetensors, torch-export or onnx."
        )
    payload = read_payload(model.source)
    if payload.foreign:
        raise ExportError(
            f"{model.source} holds objects of {', '.join(payload.foreign)}, which are not loaded "
            "because that could run code, so a copy would lack them: export another format."
        )
    content = _thawed(payload.content)
    replaced = tuple(_replace_heads(content, model, head))
    if not replaced:
        raise ExportError(
            f"{model.source} does not hold its classifier as one linear layer (the family "
            f"{model.family} folds it from several parts), so the new head has no place in it: "
            "export another format."
        )
    if path.suffix == ".safetensors":
        with safe_open(model.source, framework="pt") as file:
            metadata = file.metadata()
        path.write_bytes(save(content, metadata=metadata))
    else:
        # Into memory first: on a full disk torch's own writer ends the whole process.
        buffer = io.BytesIO()
        torch.save(content, buffer)
        path.write_bytes(buffer.getbuffer())
    _require_head(model, head, path)
    return replaced


def _require_linear(model: TrainedModel) -> None:
    """Refuse classifiers into whose place a linear layer does not fit."""
    classifier = model.classifier
    kind = None
    if classifier.normalized:
        kind = "a cosine classifier, which normalises features and weights"
    elif classifier.bias is None:
        kind = "a linear layer without a bias"
    elif classifier.scale != 1.0:
        kind = f"a linear layer with a scale of {classifier.scale:g}"
    if kind is not None:
        raise ExportError(
            f"The classifier of {model.source} is {kind}; the new head is a linear layer with a "
            "bias and would give other logits in its place. Export another format: safetensors, "
            "torch-export or onnx."
        )


def _thawed(value: Any) -> Any:
    """A copy whose containers can be changed; the tensors are shared, not copied."""
    if isinstance(value, Mapping):
        # copy.copy keeps the kind of mapping and what hangs on it, such as a state dict's versions.
        copied = copy.copy(value) if isinstance(value, MutableMapping) else dict(value)
        for key in copied:
            copied[key] = _thawed(copied[key])
        return copied
    if type(value) in {list, tuple}:
        return type(value)(map(_thawed, value))
    return value


def _replace_heads(value: Any, model: TrainedModel, head: Head, where: str = "") -> Iterator[str]:
    """Replace every weight and bias pair that is the old classifier; yield their names."""
    if isinstance(value, Mapping):
        for key in list(value):
            name, dot, last = str(key).rpartition(".")
            bias_key = f"{name}{dot}bias"
            pair = (value[key], value.get(bias_key))
            if last == "weight" and _is_classifier(*pair, model):
                new = (torch.tensor(head.weight), torch.tensor(head.bias))
                for each, old, tensor in zip((key, bias_key), pair, new, strict=True):
                    value[each] = _like(old, tensor)  # type: ignore[index]  # thawed: a dict
                    yield f"{where}{each}"
            elif not isinstance(value[key], Tensor):
                yield from _replace_heads(value[key], model, head, f"{where}{key}.")
    elif isinstance(value, list | tuple):
        for i, each in enumerate(value):
            if not isinstance(each, Tensor):
                yield from _replace_heads(each, model, head, f"{where}{i}.")


def _is_classifier(weight: object, bias: object, model: TrainedModel) -> bool:
    """Whether two values are the old classifier's weight (C, D) and bias (C,)."""
    pairs = ((weight, model.classifier.weight), (bias, model.classifier.bias))
    return all(
        isinstance(found, Tensor)
        and wanted is not None
        and found.shape == wanted.shape
        and torch.equal(found.detach().float(), torch.tensor(wanted))
        for found, wanted in pairs
    )


def _like(old: Tensor, new: Tensor) -> Tensor:
    """The new values as the kind of tensor that the old ones were."""
    values = new.to(old.dtype)
    if isinstance(old, torch.nn.Parameter):
        return torch.nn.Parameter(values, requires_grad=old.requires_grad)
    return values


def _require_head(model: TrainedModel, head: Head, path: Path) -> None:
    """Load what was written as a user would: it must be the same model with the new head."""
    try:
        written = load_checkpoint(path, model=model.family)
    except CheckpointError as error:
        raise ExportError(f"The patched checkpoint does not load: {error}") from None
    classifier = written.classifier
    tolerance = 1e-3 * float(abs(head.weight).max())  # a file in half precision rounds the head
    same = written.backbone_digest() == model.backbone_digest() and classifier.bias is not None
    if not same or float(abs(classifier.weight - head.weight).max()) > tolerance:
        raise ExportError(f"The patched checkpoint {path} does not give the new head.")
