"""The errors of the pipeline; every message says what was needed, what came and what to do."""

from cache.errors import NolbError

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DatasetError",
    "EvaluationError",
    "ExtractionError",
    "FitError",
    "HeadError",
    "NolbError",
    "OutputExistsError",
    "UnreadableImageError",
]


class ConfigError(NolbError):
    """A recipe or an option has an unknown key or a value outside its range."""


class CheckpointError(NolbError):
    """A checkpoint is missing, unreadable, of an unknown family, or does not fill its model."""


class DatasetError(NolbError):
    """A folder, list file or named data set is missing, empty or contradicts another split."""


class UnreadableImageError(DatasetError):
    """One image cannot be decoded; extraction marks its row as failed and goes on."""


class ExtractionError(NolbError):
    """Extraction cannot go on; what has been recorded so far stays and resumes."""


class FitError(NolbError):
    """A head cannot be fitted on what the store holds."""


class HeadError(NolbError):
    """A head file is missing, unreadable or belongs to another store."""


class EvaluationError(NolbError):
    """Scores cannot be computed from what is there."""


class OutputExistsError(NolbError):
    """A file or folder that would be written exists already; nothing was touched."""
