"""Memory that is used up: whoever asked for it, and whatever error that became."""

from __future__ import annotations

import sys

SIGNS = (
    "can't allocate memory",  # torch's allocator for CPUs, which has no error of its own
    "not enough memory",  # likewise, on Windows
    "out of memory",  # CUDA's own word, outside of torch's allocator
    "STATUS_ALLOC_FAILED",  # cuBLAS and cuDNN
)
"""What such a RuntimeError says in its first line."""


def is_exhaustion(error: BaseException) -> bool:
    """Whether an error says that memory, the machine's or a GPU's, is used up.

    torch is not imported for it: where it has raised an error, it is there.
    """
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError):
        return True
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    first_line = str(error).partition("\n")[0]
    return isinstance(error, RuntimeError) and any(sign in first_line for sign in SIGNS)
