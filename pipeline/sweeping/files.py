"""The files that a sweep is saved as: table, JSON, Markdown and pictures."""

from __future__ import annotations

import json
from pathlib import Path

from cache.errors import StoreFormatError
from cache.strict_json import parse
from pipeline.errors import EvaluationError
from pipeline.files import refuse_existing_in, whole_files
from pipeline.sweeping.sweep import Sweep
from pipeline.tables import table7_markdown
from pipeline.writing import csv_text

FILES = ("sweep.csv", "sweep.json", "sweep.md", "sweep-heatmaps.png", "reliability.png")
"""What a sweep is saved as; the last one only where calibration was measured."""


def refuse_existing_sweep(out_dir: str | Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds a sweep already; a command asks before its work, not after it.

    Raises:
        OutputError: as `refuse_existing_in`.
    """
    refuse_existing_in(out_dir, FILES, overwrite=overwrite)


def save_sweep(sweep: Sweep, out_dir: str | Path, overwrite: bool = False) -> list[Path]:
    """Write a sweep's files into a folder.

    These are `sweep.csv` and `sweep.json` with everything, `sweep.md` in the layout of the paper's
    Table 7, the heat maps `sweep-heatmaps.png`, and `reliability.png` where calibration was
    measured.

    Args:
        sweep: what `sweep_temps` returned.
        out_dir: made where it is missing; other files in it are left alone.
        overwrite: whether files of those names may be replaced.

    Raises:
        OutputError: as `whole_files`; what was there is untouched.
    """
    # matplotlib loads for half a second, and a sweep need not be saved
    from pipeline.figures import reliability_diagrams, temperature_heatmaps

    names = list(FILES[: None if sweep.calibration is not None else -1])
    with whole_files(out_dir, FILES, overwrite=overwrite) as made:
        (made / names[0]).write_text(_cells_as_csv(sweep), encoding="utf-8", newline="")
        (made / names[1]).write_text(json.dumps(sweep.to_json()) + "\n", encoding="utf-8")
        (made / names[2]).write_text(table7_markdown(sweep), encoding="utf-8")
        temperature_heatmaps(sweep, made / names[3])
        if sweep.calibration is not None:
            reliability_diagrams(sweep.calibration, made / names[4])
    return [Path(out_dir) / name for name in names]


def load_sweep(folder: str | Path) -> Sweep:
    """The sweep that was saved in a folder.

    Raises:
        EvaluationError: if there is none, or a value in it is not what `save_sweep` writes.
    """
    path = Path(folder)
    if not path.is_file():
        path /= "sweep.json"
    if not path.is_file():
        raise EvaluationError(
            f"{folder} holds no sweep.json: make one with nolb sweep-temps STORE HEAD --out "
            f"{folder}, or leave --sweep out."
        )
    try:
        content = parse(path.read_bytes(), "it")
    except (OSError, StoreFormatError) as error:
        raise EvaluationError(
            f"{path} cannot be read ({str(error).rstrip('.')}): run nolb sweep-temps again."
        ) from None
    return Sweep.from_json(content, str(path))


def _cells_as_csv(sweep: Sweep) -> str:
    """The grid as CSV, an absent group as an empty field."""
    cells = sweep.cells()
    return csv_text([list(cells[0]), *(list(cell.values()) for cell in cells)])
