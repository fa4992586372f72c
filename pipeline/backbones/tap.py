"""Features and logits from one forward pass of any model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cache.closable import Closable
from pipeline.errors import ConfigError, ExtractionError, first_line
from pipeline.exhaustion import is_exhaustion

ROWS_AND_COLUMNS = 2


class Tap(Closable):
    """Yields what goes into a model's classifier beside what comes out of the model.

    A forward-pre-hook on the classifier notes its input, so the model's own code stays as it is;
    `close`, or leaving a `with` block, takes the hook away. Evaluation mode, device and autocast
    are the caller's.

    Args:
        model: any model that calls its classifier once on (B, D) features.
        classifier: dotted name of the classifier module.

    Raises:
        ConfigError: if the model has no such module.
    """

    def __init__(self, model: nn.Module, classifier: str) -> None:
        self._model = model
        self._name = classifier
        self._calls: list[tuple[object, ...]] = []
        try:
            module = model.get_submodule(classifier)
        except AttributeError:
            children = ", ".join(name for name, _ in model.named_children())
            raise ConfigError(
                f"The model has no module {classifier!r} to take features from; "
                f"its top-level modules are {children or 'none'}."
            ) from None
        self._hook = module.register_forward_pre_hook(self._note, with_kwargs=True)

    def close(self) -> None:
        """Take the hook off the model."""
        self._hook.remove()

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Run the model once.

        Args:
            x: the model's input, B samples.

        Returns:
            Features (B, D) that went into the classifier, and the model's output, logits (B, C).

        Raises:
            ExtractionError: if the classifier is not called exactly once on one (B, D) tensor, or
                the model does not return (B, C) logits.
        """
        try:
            logits = self._outputs(x)
            return (
                self._features(self._calls, len(x)),
                self._checked("The model's output", logits, len(x)),
            )
        finally:
            self._calls = []  # tensors of a finished call must not stay in memory

    def _outputs(self, x: Tensor) -> object:
        """The model's output for B samples x.

        Raises:
            OutOfMemoryError: where memory does not suffice, on a CPU too.
            ExtractionError: if the model refuses the batch for another reason.
        """
        try:
            return self._model(x)
        except torch.OutOfMemoryError:
            raise
        except (AssertionError, RuntimeError, ValueError) as error:
            reason = first_line(error)
            if is_exhaustion(error):
                raise torch.OutOfMemoryError(reason) from None
            raise ExtractionError(
                f"The model cannot take a batch of the shape {tuple(x.shape)} ({reason}); if the "
                f"images' size is the reason, set --resize and --crop."
            ) from error

    def _note(
        self, _module: nn.Module, inputs: tuple[object, ...], keywords: dict[str, object]
    ) -> None:
        self._calls.append((*inputs, *keywords.values()))

    def _features(self, calls: list[tuple[object, ...]], batch: int) -> Tensor:
        """The one tensor (B, D) of the classifier's one call.

        Raises:
            ExtractionError: if there were other calls, or other inputs.
        """
        if len(calls) != 1:
            times = "never" if not calls else f"{len(calls)} times"
            raise ExtractionError(
                f"The model called its classifier {self._name!r} {times} in one pass; "
                f"it must be called once: name the module that makes the logits."
            )
        inputs = calls[0]
        if len(inputs) != 1:
            raise ExtractionError(
                f"The classifier {self._name!r} got {len(inputs)} inputs; features are "
                f"one tensor (B, D): name the module that makes the logits from it."
            )
        features = inputs[0]
        if isinstance(features, Tensor) and features.shape[2:] == (1, 1):
            features = features.flatten(1)  # a 1x1 convolution on pooled maps is a linear layer
        return self._checked(f"The input of the classifier {self._name!r}", features, batch)

    @staticmethod
    def _checked(what: str, tensor: object, batch: int) -> Tensor:
        """The same, if it is a tensor of B rows and two dimensions.

        Raises:
            ExtractionError: if it is not.
        """
        if not isinstance(tensor, Tensor):
            raise ExtractionError(
                f"{what} must be one tensor with a row for each sample; got a "
                f"{type(tensor).__name__}."
            )
        if tensor.ndim != ROWS_AND_COLUMNS or len(tensor) != batch:
            raise ExtractionError(
                f"{what} must have one row for each of the {batch} samples and two dimensions; "
                f"got the shape {tuple(tensor.shape)}."
            )
        return tensor
