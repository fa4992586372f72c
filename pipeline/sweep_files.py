"""The files that a sweep is saved as: table, JSON, Markdown and pictures."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path

from pipeline.errors import OutputExistsError
from pipeline.sweep import Sweep
from pipeline.tables import table7_markdown

FILES = ("sweep.csv", "sweep.json", "sweep.md", "sweep-heatmaps.png", "reliability.png")
"""What a sweep is saved as; the last one only where calibration was measured."""


def refuse_existing_sweep(out_dir: str | Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds a sweep already; a command asks before its work, not after it.

    Raises:
        OutputExistsError: if it does and `overwrite` is false, or it is a file.
    """
    folder = Path(out_dir)
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"{folder} is a file: give a folder for the sweep's results.")
    present = [name for name in FILES if (folder / name).exists()]
    if present and not overwrite:
        raise OutputExistsError(
            f"{folder} holds {', '.join(present)} already: give another folder or --overwrite."
        )


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
        OutputExistsError: if one of the files exists and `overwrite` is false.
    """
    # matplotlib loads for half a second, and a sweep need not be saved
    from pipeline.figures import reliability_diagrams, temperature_heatmaps

    folder = Path(out_dir)
    refuse_existing_sweep(folder, overwrite=overwrite)
    names = list(FILES[: None if sweep.calibration is not None else -1])
    folder.mkdir(parents=True, exist_ok=True)
    # Everything is made first and moved last: a failure leaves what was there untouched.
    with tempfile.TemporaryDirectory(prefix=".sweep-", dir=folder) as temporary:
        made = Path(temporary)
        (made / names[0]).write_text(_csv(sweep), encoding="utf-8", newline="")
        (made / names[1]).write_text(json.dumps(sweep.to_json()) + "\n", encoding="utf-8")
        (made / names[2]).write_text(table7_markdown(sweep), encoding="utf-8")
        temperature_heatmaps(sweep, made / names[3])
        if sweep.calibration is not None:
            reliability_diagrams(sweep.calibration, made / names[4])
        return [(made / name).replace(folder / name) for name in names]


def _csv(sweep: Sweep) -> str:
    """The grid as CSV, an absent group as an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    cells = sweep.cells()
    writer.writerow(cells[0])
    for cell in cells:
        writer.writerow(f"{v:.10g}" if isinstance(v, float) else v for v in cell.values())
    return text.getvalue()
