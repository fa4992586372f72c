"""Memory of `sweep-temps` against its stated budget, straight from a store on disk.

    python -m benchmarks.sweep_memory [--rows 50000 --classes 1000 --cells 50 --memory 256MiB]

The sweep runs in a process of its own; what it needs is its peak less what importing the libraries
and opening the store took. (It reads `/proc`, so Linux only.)
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from benchmarks.machine import describe
from benchmarks.synthetic import random_store
from pipeline.config import FitConfig
from pipeline.heads import save_head
from pipeline.stages.fit_head import fit_head

CODE = """
import json, re, sys
from cache import open_store
from pipeline.config import SweepConfig, parse_temperatures
from pipeline.heads import load_head
from pipeline.stages.sweep_temps import sweep_temps
store, head, cells, memory = sys.argv[1:]
def peak():  # of this process alone; getrusage would count the parent's too
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024
grid = parse_temperatures(f"0.25:16:{cells}")
opened, loaded = open_store(store), load_head(head)
before = peak()
sweep_temps(opened, loaded, SweepConfig(t_old=grid, t_new=grid, memory=memory))
print(json.dumps([before, peak()]))
"""


@click.command()
@click.option("--rows", default=50_000, show_default=True)
@click.option("--classes", default=1000, show_default=True)
@click.option("--cells", default=50, show_default=True)
@click.option("--memory", default="256MiB", show_default=True, help="The budget.")
def main(rows: int, classes: int, cells: int, memory: str) -> None:
    """Print the budget, the store's size and what the sweep needed."""
    print(describe())
    with tempfile.TemporaryDirectory() as folder:
        path, head_path = Path(folder) / "random.zarr", Path(folder) / "head.safetensors"
        with random_store(rows, classes, path=path) as store:
            save_head(fit_head(store, FitConfig(epochs=1)).head, head_path)
        size = sum(f.stat().st_size for f in (path / "test").rglob("*") if f.is_file()) / 2**20
        command = [sys.executable, "-c", CODE, str(path), str(head_path), str(cells), memory]
        run = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  # ours
    before, after = json.loads(run.stdout)
    print(f"rows, classes, cells     {rows:,}, {classes:,}, {cells} x {cells}")
    print(f"split in the store       {size:,.0f} MiB")
    print(f"budget                   {memory}")
    print(f"sweep, at its peak       {after - before:,.0f} MiB above {before:,.0f} MiB before it")


if __name__ == "__main__":
    main()
