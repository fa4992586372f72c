"""The formats that a classifier can be written in, and how each is read back and run.

Legend: B images, C classes, S the side of an image in pixels.
"""

from __future__ import annotations

import copy
import importlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.export.passes import move_to_device_pass

from pipeline.backbones import CosineLinear, find_backbone
from pipeline.backbones.named import is_factory
from pipeline.checkpoints import TrainedModel
from pipeline.checkpoints.library import count_classes
from pipeline.checkpoints.mapping import mismatches
from pipeline.checkpoints.model import put_module
from pipeline.datasets.preprocessing import N_CHANNELS
from pipeline.devices import choose_device
from pipeline.errors import ConfigError, ExportError
from pipeline.export_formats import SUFFIXES
from pipeline.exporting.description import METADATA_KEY, Description
from pipeline.exporting.network import ExportedNetwork, NormalizedLinear, TwoHeads

EXTRA_FILE = f"{METADATA_KEY}.json"
"""Where a torch.export program carries its description."""

CUDA_PROVIDER = "CUDAExecutionProvider"
"""What onnxruntime calls a GPU."""

TRACED_BATCH = 2
"""Images in the example that a program is traced with: at 1 torch would fix the batch size."""

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Images (B, 3, S, S), as described in the file, -> outputs (B, C)."""


@dataclass(frozen=True)
class Exported:
    """An exported classifier, ready to run."""

    path: Path
    """The file."""

    description: Description
    """What it is."""

    run: Run
    """Runs it on images."""

    network: nn.Module | None
    """The network, where the format holds weights; None for a program."""

    device: torch.device
    """Where it runs."""


@dataclass(frozen=True)
class Format:
    """A way of writing a classifier."""

    suffix: str
    """Of its files."""

    write: Callable[[ExportedNetwork, Description, Path], None]
    """Writes a classifier."""

    read: Callable[[Path, TrainedModel | None, str], Exported]
    """Reads it back, to run on a device; the model helps where the file holds weights alone."""


def write_export(name: str, network: nn.Module, description: Description, path: Path) -> None:
    """Write a classifier in the format of that name.

    Args:
        name: one of `FORMATS`.
        network: normalised images -> outputs.
        description: of the file; tells whether it normalises.
        path: file to write.

    Raises:
        ExportError: if the format's packages are missing.
    """
    inside = description.normalization == "inside"
    classifier = ExportedNetwork(network, description.preprocessing if inside else None)
    FORMATS[name].write(classifier.eval(), description, path)


def open_export(
    path: Path | str, model: TrainedModel | None = None, *, device: str = "auto"
) -> Exported:
    """Read an exported classifier, in the format of its suffix.

    Args:
        path: a file that `write_export` wrote.
        model: the trained model, for weights of a network that its name does not build, as that
            of one's own factory.
        device: where it runs, as `ExtractConfig.device`.

    Raises:
        ConfigError: if there is no such device.
        ExportError: if it is missing, damaged, or nothing that nolb exported.
    """
    path = Path(path)
    found = [each for each in FORMATS.values() if each.suffix == path.suffix]
    if not found:
        suffixes = ", ".join(each.suffix for each in FORMATS.values())
        raise ExportError(f"{path}: exported models end in {suffixes}.")
    if not path.is_file():
        raise ExportError(f"{path}: no such file; make one with: nolb export ... --out {path}")
    return found[0].read(path, model, device)


def _write_safetensors(classifier: ExportedNetwork, description: Description, path: Path) -> None:
    """The network's weights by their names in it; normalisation is in the description."""
    state = {k: v.contiguous() for k, v in classifier.network.state_dict().items()}
    path.write_bytes(save(state, metadata={METADATA_KEY: description.to_text()}))


def _read_safetensors(path: Path, model: TrainedModel | None, device: str) -> Exported:
    where = choose_device(device)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
    except SafetensorError as error:
        raise ExportError(f"{path} is not a whole safetensors file ({error}).") from None
    description = Description.from_text(text, str(path))
    network, unused = _network(description, state, model, path)
    state = {name: tensor for name, tensor in state.items() if not name.startswith(unused)}
    _put_heads(network, description, state, path)
    if problems := mismatches(network, state):
        raise ExportError(f"{path} does not fill {description.backbone}: {'; '.join(problems)}.")
    network.load_state_dict(state)
    network.eval().requires_grad_(False)
    inside = description.normalization == "inside"
    classifier = ExportedNetwork(network, description.preprocessing if inside else None)
    return Exported(path, description, _runner(classifier.eval().to(where), where), network, where)


def _network(
    description: Description, state: Mapping[str, Tensor], model: TrainedModel | None, path: Path
) -> tuple[nn.Module, tuple[str, ...]]:
    """The network that the weights belong to, and how the names begin of those without use."""
    if model is not None:
        return copy.deepcopy(model.module), ()
    name = description.backbone
    # Nobody's own code is imported because a file names it.
    if is_factory(name):
        raise ExportError(
            f"{path} holds the weights of {name}, a function that runs only where you name it: "
            f"give --model {name}, or export a program (torch-export or onnx)."
        )
    try:
        backbone = find_backbone(name)
        # SqueezeNet's old outputs are features, as many as it has old classes.
        n_classes = count_classes(backbone, state) or len(description.class_names)
        return backbone.build(n_classes), backbone.unused
    except ConfigError as error:
        raise ExportError(f"{path} holds weights that have no network here: {error}") from None


def _put_heads(
    network: nn.Module, description: Description, state: Mapping[str, Tensor], path: Path
) -> None:
    """Put the new head, or both heads, without their weights into the old classifier's place."""
    n_classes, name = len(description.class_names), description.classifier_name
    layer = name if description.temperatures is None else f"{name}.new"
    if f"{layer}.weight" not in state:
        raise ExportError(f"{path} lacks the head {layer}.weight: export again.")
    width = state[f"{layer}.weight"].shape[1]
    kind = NormalizedLinear if description.normalized else nn.Linear
    part: nn.Module = kind(width, n_classes)
    if description.temperatures is not None:
        old: nn.Module = nn.Linear(width, n_classes, bias=f"{name}.old.bias" in state)
        if description.cosine_scale is not None:
            old = CosineLinear(width, n_classes, description.cosine_scale)
        part = TwoHeads(old, part, *description.temperatures)
    put_module(network, name, part)


def _write_torch_export(classifier: ExportedNetwork, description: Description, path: Path) -> None:
    """A program of torch.export: no Python code of ours is needed to run it."""
    with _quietly():
        program = torch.export.export(
            classifier, (_example(description),), dynamic_shapes=_any_batch(), strict=False
        )
        extra = {EXTRA_FILE: description.to_text()}
        # Into memory first: on a full disk torch's own writer ends the whole process.
        content = io.BytesIO()
        torch.export.save(program, content, extra_files=extra)
    path.write_bytes(content.getbuffer())


def _read_torch_export(path: Path, _: TrainedModel | None, device: str) -> Exported:
    where = choose_device(device)
    extra: dict[str, Any] = {EXTRA_FILE: ""}
    try:
        with _quietly():
            program = torch.export.load(path, extra_files=extra)
            if where.type != "cpu":  # which it was traced on
                program = move_to_device_pass(program, where)
    except Exception as error:
        # What is no such archive makes torch raise nearly anything.
        raise ExportError(f"{path} is no whole torch.export program ({error}).") from None
    description = Description.from_text(extra[EXTRA_FILE], str(path))
    return Exported(path, description, _runner(program.module(), where), None, where)


def _write_onnx(classifier: ExportedNetwork, description: Description, path: Path) -> None:
    """One ONNX file, checked; input `images`, output `logits`."""
    onnx = _needed("onnx", "onnxscript")
    with _quietly():
        program = torch.onnx.export(
            classifier, (_example(description),), dynamo=True, verbose=False,
            input_names=["images"], output_names=["logits"], dynamic_shapes=_any_batch(),
        )  # fmt: skip
    if program is None:
        raise ExportError("torch made no ONNX program of the network.")
    proto = program.model_proto
    entry = proto.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, description.to_text()
    proto.producer_name = "nolb"
    onnx.checker.check_model(proto)
    onnx.save(proto, path)


def _read_onnx(path: Path, _: TrainedModel | None, device: str) -> Exported:
    runtime = _needed("onnxruntime")
    where = _onnx_device(device, runtime.get_available_providers())
    providers: list[Any] = ["CPUExecutionProvider"]
    if where.type == "cuda":
        providers.insert(0, (CUDA_PROVIDER, {"device_id": where.index or 0}))
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        # Its exceptions have no common base but Exception.
        raise ExportError(f"{path} is no ONNX model that onnxruntime can run ({error}).") from None
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    name = session.get_inputs()[0].name

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        return cast("NDArray[np.float32]", session.run(None, {name: images})[0])

    return Exported(path, Description.from_text(text, str(path)), run, None, where)


def _onnx_device(name: str, providers: Sequence[str]) -> torch.device:
    """Where onnxruntime runs a program: `auto` is CUDA where torch and onnxruntime both have it.

    Raises:
        ConfigError: if CUDA is asked for and not there.
    """
    device = choose_device(name)
    if device.type == "cpu" or CUDA_PROVIDER in providers:
        return device
    if name == "auto":
        return torch.device("cpu")
    raise ConfigError(
        f"device {name} was asked for, but this onnxruntime runs on the CPU alone: install "
        "onnxruntime-gpu in its place, or choose --device cpu."
    )


def _runner(module: nn.Module, device: torch.device) -> Run:
    """A torch module on a device as a function of arrays."""

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            output: Tensor = module(torch.from_numpy(images).to(device))
        return cast("NDArray[np.float32]", output.cpu().numpy())

    return run


def _example(description: Description) -> Tensor:
    """Images to trace a program with."""
    if description.side is None:
        raise ExportError("A program needs the side of its images: give --size.")
    return torch.zeros(TRACED_BATCH, N_CHANNELS, description.side, description.side)


def _any_batch() -> tuple[dict[int, Any]]:
    """The first dimension of the only input may have any size."""
    return ({0: torch.export.Dim("batch", min=1, max=2**20)},)


def _needed(*names: str) -> Any:
    """Import packages of the extra `export`; the first is returned."""
    try:
        found = [importlib.import_module(name) for name in names]
    except ImportError:
        raise ExportError(
            "ONNX needs the packages onnx, onnxscript and onnxruntime: pip install 'nolb[export]'."
        ) from None
    return found[0]


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporters' remarks on their own insides; what fails still raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        name: Format(SUFFIXES[name], write, read)
        for name, write, read in (
            ("safetensors", _write_safetensors, _read_safetensors),
            ("torch-export", _write_torch_export, _read_torch_export),
            ("onnx", _write_onnx, _read_onnx),
        )
    }
)
"""By the names that users write; `checkpoint` is not among them: it is the user's own format."""
