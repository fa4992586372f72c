"""The processes that share one work, as `torchrun` starts them.

They meet at the key-value store of torch.distributed. Those of an extraction do so at the beginning
and at the end; in between nobody waits for anybody, and no collective operation runs. Those of a
fit add up tensors in every step (`adding_up`).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.errors import ExtractionError, FitError, first_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from cache import Shard

_SECONDS_BETWEEN_LOOKS = 0.1
_LONGEST_WAIT = timedelta(minutes=30)  # for the slowest reader; a death is noticed at once
_LAST_GREETING = 60.0  # seconds that the first process waits for the others to have read the end


class _KeyValueStore(Protocol):
    """What is used of torch.distributed.Store."""

    def set(self, key: str, value: str, /) -> None: ...

    def get(self, key: str, /) -> bytes: ...

    def check(self, keys: list[str], /) -> bool: ...


@dataclass(frozen=True)
class Team:
    """A process among those that share the work; one of its own is a team of one."""

    rank: int = 0
    """Number of this process; 0 leads."""

    size: int = 1
    """Number of processes."""

    local_rank: int = 0
    """Number of this process on its machine: which GPU it takes."""

    local_size: int = 1
    """Number of processes on this machine, which share its cores."""

    restarted: bool = False
    """Whether processes of this team died and it was started again."""

    store: _KeyValueStore | None = None
    """Where the processes meet; `None` for a team of one."""

    work: str = "extraction"
    """What they do, for messages."""

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] | None = None, work: str = "extraction"
    ) -> Team:
        """The team that `torchrun` has set up, or a team of one.

        Args:
            environment: variables of the process; its own where not given.
            work: what the team does.

        Raises:
            ExtractionError: if the processes cannot reach each other.
        """
        env = os.environ if environment is None else environment
        if int(env.get("WORLD_SIZE", "1")) == 1 or "RANK" not in env:
            return cls(restarted=int(env.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0)
        from torch.distributed.rendezvous import rendezvous

        try:
            store, rank, size = next(rendezvous("env://", timeout=timedelta(minutes=5)))
        except (RuntimeError, ValueError) as error:
            raise ExtractionError(
                f"The processes cannot meet ({first_line(error)}): start them with torchrun."
            ) from None
        return cls(
            rank, size, int(env.get("LOCAL_RANK", rank)), int(env.get("LOCAL_WORLD_SIZE", size)),
            int(env.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0, store, work,
        )  # fmt: skip

    @property
    def leads(self) -> bool:
        """Whether this process begins and seals the store."""
        return self.rank == 0

    def tell(self, what: str, value: Any) -> None:
        """Say something to all the others."""
        if self.store is not None:
            with _contact():
                self.store.set(f"nolb/{what}", json.dumps(value))

    def hear(self, what: str, dead: Callable[[], bool] | None = None) -> Any:
        """Wait for what another process tells.

        Args:
            what: its name.
            dead: tells whether those who could say it are gone.

        Raises:
            ExtractionError: if another process of the team failed.
        """
        assert self.store is not None, "a team of one has nobody to listen to"  # noqa: S101
        with _contact():
            while not self.store.check([f"nolb/{what}"]):
                if self.store.check(["nolb/failed"]):
                    raise ExtractionError(json.loads(self.store.get("nolb/failed")))
                # Who has told it may leave, so it is looked for once more.
                if dead is not None and dead() and not self.store.check([f"nolb/{what}"]):
                    raise ExtractionError(
                        "Another process of this extraction has died; what is finished is stored. "
                        "Go on with the same command and --resume."
                    )
                time.sleep(_SECONDS_BETWEEN_LOOKS)
            return json.loads(self.store.get(f"nolb/{what}"))

    def hear_all(self, what: str, dead: Callable[[], bool] | None = None) -> None:
        """Wait until every other process has told `what/RANK`."""
        for rank in range(self.size):
            if rank != self.rank:
                self.hear(f"{what}/{rank}", dead)

    def fail(self, error: BaseException) -> None:
        """Let the others know that this process cannot go on."""
        if self.store is not None:
            reason = str(error) or type(error).__name__
            message = f"Process {self.rank} of this {self.work} stopped: {reason}"
            with suppress(RuntimeError):  # the run has its outcome already
                if not self.store.check(["nolb/failed"]):  # the first to fail knows why
                    self.store.set("nolb/failed", json.dumps(message))

    def part(self) -> None:
        """Leave together: the first process may keep the place where all of them meet."""
        self.tell(f"left/{self.rank}", True)
        if self.store is not None and self.leads:
            latest = time.monotonic() + _LAST_GREETING
            with suppress(RuntimeError):  # the run has its outcome already
                while time.monotonic() < latest and not self.store.check(
                    [f"nolb/left/{rank}" for rank in range(self.size)]
                ):
                    time.sleep(_SECONDS_BETWEEN_LOOKS)

    def share_of(self, shards: Sequence[Shard], cost: Callable[[Shard], int]) -> list[Shard]:
        """Give the process its shards: consecutive ones, of about the same cost for everybody.

        Args:
            shards: all of them, the same for every process.
            cost: work that one takes, at least 1.
        """
        total = sum(map(cost, shards))
        own, begun = [], 0
        for shard in shards:
            # The process in whose stretch of the whole the middle of the shard lies.
            if (2 * begun + cost(shard)) * self.size // (2 * total) == self.rank:
                own.append(shard)
            begun += cost(shard)
        return own


@contextmanager
def adding_up(team: Team, device: torch.device) -> Iterator[Callable[[Tensor], None]]:
    """A function that replaces a tensor by its sum over the team, in every process.

    Args:
        team: two processes or more.
        device: where the tensors are; decides how they travel.

    Raises:
        FitError: if another process stopped or cannot be reached, with its reason where it gave
            one.
    """
    from torch import distributed
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]  # its home is private

    def add_up(values: Tensor) -> None:
        with _company(team):
            distributed.all_reduce(values)

    with _company(team):
        distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=PrefixStore("nolb/sums", team.store),  # type: ignore[arg-type]  # it is one
            rank=team.rank, world_size=team.size, timeout=_LONGEST_WAIT,
        )  # fmt: skip
    try:
        yield add_up
    except BaseException as error:
        team.fail(error)
        raise
    finally:
        distributed.destroy_process_group()


@contextmanager
def _company(team: Team) -> Iterator[None]:
    """Turn the loss of another process into a sentence."""
    try:
        yield
    except RuntimeError:
        reason = "Another process of this fit has died or cannot be reached any more"
        with suppress(RuntimeError):  # where they met may be gone too
            if team.store is not None and team.store.check(["nolb/failed"]):
                reason = json.loads(team.store.get("nolb/failed")).rstrip(".")
        raise FitError(f"{reason}. No head was written: start the same command again.") from None


@contextmanager
def _contact() -> Iterator[None]:
    """Turn a lost connection into a sentence."""
    try:
        yield
    except RuntimeError:
        raise ExtractionError(
            "The other processes of this extraction cannot be reached any more; what is finished "
            "is stored. Go on with the same command and --resume."
        ) from None
