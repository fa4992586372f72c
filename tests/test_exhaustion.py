"""Memory that is used up ends in one sentence, whoever asked for it."""

from __future__ import annotations

import click
import pytest
import torch
from click.testing import CliRunner, Result

from pipeline.cli.failures import Group
from pipeline.exhaustion import is_exhaustion

TOO_MUCH = 2**62
"""Bytes that no machine has."""


def asked_of_torch() -> RuntimeError:
    """The error that torch itself raises on this machine's CPU."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(TOO_MUCH, dtype=torch.uint8)
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be ..."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        asked_of_torch(),
    ],
    ids=lambda error: type(error).__name__ + str(error)[:20],
)
def test_it_is_known_by_its_errors(error: BaseException) -> None:
    assert is_exhaustion(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (1x2 and 3x4)"),
        RuntimeError("Wrong.\nThe GPU is not out of memory."),
        RuntimeError(),
        ValueError("out of memory"),
        KeyboardInterrupt(),
    ],
)
def test_other_errors_are_other_errors(error: BaseException) -> None:
    assert not is_exhaustion(error)


def run(error: BaseException) -> Result:
    """A command of the group that raises this."""

    @click.group(cls=Group)
    def group() -> None: ...

    @group.command()
    def work() -> None:
        raise error

    return CliRunner().invoke(group, ["work"])


@pytest.mark.parametrize("error", [MemoryError(), asked_of_torch(), torch.OutOfMemoryError("full")])
def test_the_command_line_says_so_in_a_sentence(error: BaseException) -> None:
    result = run(error)
    assert result.exit_code == 1
    assert result.stderr == (
        "nolb: The memory is used up: make batches, views or images smaller.\n"
    )


def test_other_errors_keep_their_traceback() -> None:
    bug = RuntimeError("shapes cannot be multiplied")
    assert run(bug).exception is bug
    assert run(click.exceptions.Exit(3)).exit_code == 3
