"""The errors of the store; every message says what was needed, what came and what to do."""


class NolbError(Exception):
    """Base of every error that the project raises on purpose.

    The command line turns it into one sentence and exit code 1; a traceback is a bug.
    """


class StoreError(NolbError):
    """Something is wrong with a store or with what is asked of it."""


class StoreNotFoundError(StoreError):
    """No store stands at the path."""


class StoreExistsError(StoreError):
    """A store, finished or not, stands where a new one was to be created."""


class StoreLockedError(StoreError):
    """Another process is writing the store."""


class StoreFormatError(StoreError):
    """What stands at the path is no store of ours, or one of a version that we cannot read."""


class IncompleteStoreError(StoreError):
    """Shards of the store are not written yet."""


class IdentityMismatchError(StoreError):
    """Two things that must come from the same extraction do not; the message names the fields."""


class CorruptStoreError(StoreError):
    """Stored bytes do not agree with their record."""


class NonFiniteError(StoreError):
    """Features or logits hold NaN or infinity in rows that are not marked failed."""


def one_line(error: BaseException) -> str:
    """Return an error's message as one bounded line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
