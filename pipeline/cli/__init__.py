"""The command line: each command parses, calls a public function and prints.

Command modules import the library inside their functions, so that `--help` needs no torch.
"""

from __future__ import annotations

import click

from pipeline.cli.adopt_head import adopt_head
from pipeline.cli.average_heads import average_heads
from pipeline.cli.balance_head import balance_head
from pipeline.cli.demo import demo
from pipeline.cli.evaluate import evaluate
from pipeline.cli.export import export
from pipeline.cli.extract import extract
from pipeline.cli.failures import Group
from pipeline.cli.fit_head import fit_head
from pipeline.cli.inspect import inspect
from pipeline.cli.predict import predict
from pipeline.cli.pretrain import pretrain
from pipeline.cli.report import report
from pipeline.cli.reproduce import reproduce
from pipeline.cli.store import store
from pipeline.cli.sweep_temps import sweep_temps

__all__ = ["main"]


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nolb")
def main() -> None:
    """No one left behind: make the worst class of an image classifier better.

    \b
    The path, on any trained classifier and its long-tailed data:
      nolb extract      run the frozen backbone once, cache features and old logits
      nolb fit-head     re-train the linear head on them with the Geometric Mean Loss
      nolb sweep-temps  combine old and new head over a grid of two temperatures
      nolb evaluate     every class's recall, and the lowest of them

    `nolb demo` walks it on embedded data in a minute.
    """


for command in (
    demo,
    extract,
    fit_head,
    sweep_temps,
    evaluate,
    report,
    export,
    predict,
    adopt_head,
    average_heads,
    balance_head,
    store,
    inspect,
    pretrain,
    reproduce,
):
    main.add_command(command)
