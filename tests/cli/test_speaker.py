"""What commands say: one form for every line, people and programs on streams of their own."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from rich.table import Table

from pipeline.cli.options import json_option, overwrite_option, resume_option
from pipeline.cli.output import LABEL_WIDTH, Speaker, write_json

CLI = Path(__file__).resolve().parents[2] / "pipeline" / "cli"


def say_all(speaker: Speaker) -> None:
    speaker.tell("preprocessing", "resize 32")
    speaker.note("mind this")
    speaker.warn("[red] cannot be read")
    table = Table()
    table.add_column("[red]:cat:")
    speaker.show(table)
    speaker.wrote(Path("a.csv"), Path("b.csv"))
    speaker.next("nolb evaluate a.zarr")


def test_labels_and_texts_stand_in_one_column(capsys: pytest.CaptureFixture[str]) -> None:
    say_all(Speaker())
    lines = capsys.readouterr().out.splitlines()
    labels = ("preprocessing", "note", "warning", "wrote", "next")
    labelled = [line for line in lines if line.startswith(labels)]
    assert [line[:LABEL_WIDTH].rstrip() for line in labelled] == list(labels)
    assert [line[LABEL_WIDTH:] for line in labelled] == [
        "resize 32", "mind this", "[red] cannot be read", "a.csv, b.csv", "nolb evaluate a.zarr",
    ]  # fmt: skip
    assert "[red]:cat:" in "".join(lines)  # names are data, no markup


@pytest.mark.parametrize("json_path", ["-", None, "r.json"])
@pytest.mark.parametrize("stderr", [False, True])
def test_people_read_where_no_program_does(
    capsys: pytest.CaptureFixture[str], json_path: str | None, stderr: bool
) -> None:
    say_all(Speaker(json_path, stderr=stderr))
    out, err = capsys.readouterr()
    assert (out == "") == (stderr or json_path == "-")
    assert (err == "") == (out != "")


def test_a_process_that_does_not_lead_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    speaker = Speaker()
    speaker.quiet = True
    say_all(speaker)
    assert capsys.readouterr() == ("", "")


@click.command()
@resume_option("Go on.")
@overwrite_option
@json_option
def command(resume: bool, overwrite: bool, json_path: str | None) -> None:
    if resume:
        Path("r.json").write_text("{}")  # it appears during the work
    write_json({"overwrite": overwrite}, json_path)


@pytest.mark.parametrize("arguments", [["--resume", "--overwrite"], ["--overwrite", "--resume"]])
def test_going_on_and_beginning_anew_contradict_each_other(arguments: list[str]) -> None:
    refused = CliRunner().invoke(command, arguments)
    assert refused.exit_code == 2
    assert "--resume and --overwrite contradict each other: give one." in refused.output


def test_a_result_as_json_replaces_nothing_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, exists in (([], False), ([], True), (["--overwrite"], False)):
        done = CliRunner().invoke(command, ["--json", "r.json", *arguments])
        assert ("exists already" in str(done.exception)) == exists
    written = json.loads((tmp_path / "r.json").read_text())
    assert written == {"written_by": "nolb", "overwrite": True}
    (tmp_path / "r.json").unlink()
    late = CliRunner().invoke(command, ["--json", "r.json", "--resume"])
    assert "exists already" in str(late.exception)
    assert (tmp_path / "r.json").read_text() == "{}"


def test_a_result_as_json_replaces_only_one_of_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    group = click.Group("nolb", {"first": command, "second": command})
    for content, replaced in (
        ('{"scores": [1, 2]}', False),
        ('{"written_by": "nolb first"}', False),  # somebody wrote it by hand
        ("", True),
    ):
        (tmp_path / "r.json").write_text(content)
        done = CliRunner().invoke(group, ["first", "--json", "r.json", "--overwrite"])
        assert ("something else" in str(done.exception)) != replaced
        assert ((tmp_path / "r.json").read_text() == content) != replaced
    for name, replaced in (("second", False), ("first", True)):
        done = CliRunner().invoke(group, [name, "--json", "r.json", "--overwrite"])
        assert ("something else" in str(done.exception)) != replaced
        assert json.loads((tmp_path / "r.json").read_text())["written_by"] == "nolb first"


def test_every_command_speaks_through_the_speaker() -> None:
    home = {"output.py", "failures.py"}
    for path in sorted(CLI.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if path.name not in home:
            assert "click.echo" not in text, path.name
            labels = re.search(r"""["'](Note|Warning|Next|Then|Finish with|wrote)\b[: ]""", text)
            assert labels is None, path.name


def test_commands_do_not_import_each_other() -> None:
    def is_command(path: Path) -> bool:
        return "@click.command(" in path.read_text(encoding="utf-8")

    commands = {f"pipeline.cli.{path.stem}" for path in CLI.glob("*.py") if is_command(path)}
    assert "pipeline.cli.predict" in commands
    for path in CLI.glob("*.py"):
        if path.stem == "__init__":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not found & commands, path.name
