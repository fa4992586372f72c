"""The errors of the pipeline; every message says what was needed, what came and what to do."""

from collections.abc import Callable, Mapping, Sequence

from cache.errors import NolbError

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DatasetError",
    "EvaluationError",
    "ExportError",
    "ExtractionError",
    "FitError",
    "HeadError",
    "NolbError",
    "OutputError",
    "OutputExistsError",
    "TrainingError",
    "UndecidedError",
    "UnreadableImageError",
    "first_line",
    "listed",
]

SHOWN = 5
"""Most names that one message lists, unless it says otherwise."""


class ConfigError(NolbError):
    """A recipe or an option has an unknown key or a value outside its range."""


class CheckpointError(NolbError):
    """A checkpoint is missing, unreadable, of an unknown family, or does not fill its model."""


class UndecidedError(CheckpointError):
    """A checkpoint does not tell something that its logits depend on; the user has to.

    Args:
        message: what it is and how to name it.
        choices: what to write after `--model`, with the meaning of each.
    """

    def __init__(self, message: str, choices: Mapping[str, str]) -> None:
        super().__init__(message)
        self.choices = choices


class DatasetError(NolbError):
    """A folder, list file or named data set is missing, empty or contradicts another split."""


class UnreadableImageError(DatasetError):
    """One image cannot be decoded; extraction marks its row as failed and goes on."""


class ExtractionError(NolbError):
    """Extraction cannot go on; what has been recorded so far stays and resumes."""


class FitError(NolbError):
    """A head cannot be fitted on what the store holds."""


class TrainingError(NolbError):
    """A training cannot begin or go on; what its last epoch saved stays and resumes."""


class HeadError(NolbError):
    """A head file is missing, unreadable or belongs to another store."""


class EvaluationError(NolbError):
    """Scores cannot be computed from what is there."""


class ExportError(NolbError):
    """A classifier cannot be written in a format, or an exported file cannot be used."""


class OutputError(NolbError):
    """A file or folder cannot be written where it shall be; what was there is untouched."""


class OutputExistsError(OutputError):
    """A file or folder that would be written exists already; nothing was touched."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, as part of a sentence; its class where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(" .")


def listed(names: Sequence[object], most: int = SHOWN, show: Callable[[object], str] = repr) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(map(show, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
