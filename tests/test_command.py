"""How a stage ends: a clear message for what a user can mend, a traceback for what is our defect."""

import errno

import pytest

from stages.command import VigilError, command


def test_line_with_what_was_done(capsys):
    command(lambda: "a -> b")()
    assert ": a -> b in 0.0 s" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (VigilError("found 1, expected 2: count again"), "found 1, expected 2: count again"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full: make room"),
    ],
)
def test_what_a_user_can_mend_has_no_traceback(error, message):
    def main() -> str:
        raise error

    with pytest.raises(SystemExit, match=message):
        command(main)()


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "Permission denied"), KeyError("x")])
def test_a_defect_keeps_its_traceback(error):
    def main() -> str:
        raise error

    with pytest.raises(type(error)):
        command(main)()
