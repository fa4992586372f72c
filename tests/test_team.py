"""Extraction by several processes: equal stores, whoever dies."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed import HashStore

from cache import Shard, StoreExistsError, verify_store
from cache.shards import shards_of
from pipeline.config import ExtractConfig
from pipeline.errors import ExtractionError
from pipeline.progress import Snapshot
from pipeline.stages.extract import Extraction
from pipeline.team import Team
from tests.cache.store_making import tree
from tests.processes import torchrun
from tests.small_data import small_inputs
from tests.small_extractions import Run

CONFIG = ExtractConfig(device="cpu", workers=0, views=2, test_views=3, batch_size=3, shard_rows=3)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(small_inputs(tmp_path_factory.mktemp("inputs")), CONFIG)


def together(size: int, work: Callable[[Team], Extraction]) -> list[Extraction | BaseException]:
    """Run a team of threads; what each of them returned or raised."""
    store = HashStore()
    results: list[Extraction | BaseException] = [RuntimeError()] * size

    def member(rank: int) -> None:
        try:
            results[rank] = work(Team(rank, size, rank, size, store=store))
        except BaseException as error:  # what it is, the test looks at
            results[rank] = error

    threads = [threading.Thread(target=member, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("suffix", ["zarr", "h5"])
@pytest.mark.parametrize("size", [2, 4])
def test_any_number_of_processes_gives_equal_bytes(
    run: Run, tmp_path: Path, suffix: str, size: int
) -> None:
    alone, shared = tmp_path / f"alone.{suffix}", tmp_path / f"shared.{suffix}"
    run(alone).store.close()
    results = together(size, lambda team: run(shared, team=team))
    computed = []
    for result in results:
        assert isinstance(result, Extraction)
        computed.append(result.computed)
        assert result.store["train"].n_samples == 13
        result.store.close()
    assert sum(computed) == 19  # no row twice, none padded
    assert all(computed)
    assert tree(shared) == tree(alone)


class Stop:
    """Fails one process after some rows."""

    def __init__(self, after: int) -> None:
        self.after = after

    def __call__(self, snapshot: Snapshot) -> None:
        if snapshot.fresh >= self.after:
            raise ExtractionError("the graphics card has fallen out")


@pytest.mark.parametrize("rank", [0, 1])
def test_what_the_others_finished_is_kept_when_one_fails(
    run: Run, tmp_path: Path, rank: int
) -> None:
    out, whole = tmp_path / "x.zarr", tmp_path / "whole.zarr"
    results = together(
        2,
        lambda team: run(
            out, team=team, on_progress=Stop(4) if team.rank == rank else None
        ),
    )  # fmt: skip
    assert "fallen out" in str(results[rank])
    message = f"Process {rank} of this extraction stopped: the graphics card"
    assert str(results[1 - rank]).startswith(message)
    resumed = run(out, resume=True)
    # The failing one had stored 1 shard of 3 rows, the other one all of its own.
    assert resumed.computed < 19 - 3
    resumed.store.close()
    run(whole).store.close()
    assert tree(out) == tree(whole)


def test_the_number_of_processes_may_change_on_the_way(run: Run, tmp_path: Path) -> None:
    out, whole = tmp_path / "x.h5", tmp_path / "whole.h5"
    with pytest.raises(ExtractionError):
        run(out, on_progress=Stop(8))
    results = together(3, lambda team: run(out, team=team, resume=True))
    assert sum(r.computed for r in results if isinstance(r, Extraction)) < 19
    run(whole).store.close()
    assert tree(out) == tree(whole)


def test_a_complete_store_is_left_by_all(run: Run, tmp_path: Path) -> None:
    run(tmp_path / "x.zarr").store.close()
    results = together(2, lambda team: run(tmp_path / "x.zarr", team=team, resume=True))
    assert [r.computed for r in results if isinstance(r, Extraction)] == [0, 0]
    results = together(2, lambda team: run(tmp_path / "x.zarr", team=team))
    assert isinstance(results[0], StoreExistsError)
    assert "Process 0 of this extraction stopped" in str(results[1])


def test_a_team_that_was_started_again_resumes(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ExtractionError):
        run(tmp_path / "x.zarr", on_progress=Stop(8))
    again = run(tmp_path / "x.zarr", team=Team(restarted=True))
    assert again.computed < 19
    assert not verify_store(tmp_path / "x.zarr")


def test_a_dead_process_is_noticed(tmp_path: Path) -> None:
    team = Team(0, 2, store=HashStore())
    with pytest.raises(ExtractionError, match=r"has died.*--resume"):
        team.hear_all("filled", dead=lambda: True)


def test_a_lost_connection_is_a_sentence() -> None:
    class Gone:
        def check(self, *_: object) -> bool:
            raise RuntimeError("Connection reset by peer\n at TCPStore.cpp")

        set = get = check

    with pytest.raises(ExtractionError, match="cannot be reached any more"):
        Team(1, 2, store=Gone()).hear("plan")  # type: ignore[arg-type]  # a stand-in
    Team(1, 2, store=Gone()).fail(ValueError())  # type: ignore[arg-type]  # says nothing


@given(
    rows=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 25)), min_size=1, max_size=4),
    size=st.integers(1, 6),
)
def test_shares_are_disjoint_consecutive_and_even(rows: list[tuple[int, int]], size: int) -> None:
    shards = [s for i, (n, _) in enumerate(rows) for s in shards_of(n, 4, f"split{i}")]
    passes = {f"split{i}": cost for i, (_, cost) in enumerate(rows)}

    def cost(shard: Shard) -> int:
        return shard.n_rows * passes[shard.split]

    shares = [Team(rank, size).share_of(shards, cost) for rank in range(size)]
    assert [shard for share in shares for shard in share] == shards
    costs = [sum(map(cost, share)) for share in shares]
    assert max(costs) <= sum(costs) / size + max(map(cost, shards))
    assert all(a.index < b.index or a.split != b.split for s in shares for a, b in pairwise(s))


def test_without_torchrun_a_process_is_alone() -> None:
    assert Team.from_environment({}) == Team()
    assert Team.from_environment({"WORLD_SIZE": "1", "RANK": "0"}) == Team()
    assert Team.from_environment({"TORCHELASTIC_RESTART_COUNT": "1"}).restarted


def test_torchrun_shares_an_extraction(run: Run, tmp_path: Path) -> None:
    """The real thing, once: two processes, one store, one voice."""
    arguments = [
        *("--checkpoint", run.folder / "m.pth", "--train", run.folder / "train"),
        *("--test", run.folder / "test", "--views", 2, "--test-views", 3),
        *("--batch-size", 3, "--shard-rows", 3),
        *("--device", "cpu", "--workers", 0),
    ]
    said = torchrun("-m", "pipeline", "extract", *arguments, "--out", tmp_path / "x.zarr")
    assert len(re.findall("^extracted ", said, re.MULTILINE)) == 1
    run(tmp_path / "alone.zarr").store.close()
    assert not verify_store(tmp_path / "x.zarr")
    arrays = [t for t in tree(tmp_path / "x.zarr") if re.search(r"/c\.", t) and "catal" not in t]
    alone = tree(tmp_path / "alone.zarr")
    assert arrays
    assert all(tree(tmp_path / "x.zarr")[name] == alone[name] for name in arrays)
