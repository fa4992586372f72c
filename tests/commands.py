"""The command line, run in the process of the test, for the tests of what commands do and tell."""

from __future__ import annotations

from click.testing import CliRunner, Result

from pipeline.cli import main


def nolb(*words: object, code: int = 0) -> Result:
    """The result of `nolb` with these words, of any type, which ends with this exit code.

    It ends by itself: an error that no command expects has an exit code too, 1, but is none of
    those that a command tells.
    """
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, f"{result.output}\n{result.exc_info}"
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def refused(*words: object, code: int = 1) -> str:
    """The sentence, the last line of standard error, with which `nolb` refuses these words."""
    result = nolb(*words, code=code)
    assert "Traceback" not in result.output
    sentence = result.stderr.splitlines()[-1]
    assert sentence.startswith(("nolb: ", "Error: ")), sentence  # ours, and click's for wrong usage
    return sentence


def refused_at_once(*words: object, code: int = 1) -> str:
    """As `refused`, of a command that says nothing else at all."""
    said = nolb(*words, code=code).output
    assert said.startswith("nolb: ")
    assert said.count("\n") == 1, said
    return said.rstrip("\n")
