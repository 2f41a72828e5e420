"""Commands that refuse."""

import pytest

from cliptrase.cli import main


def refused_by(command, folder, capsys, arguments, code=1):
    """The one line that `cliptrase COMMAND` ends with; nothing else printed, nothing written."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        main([command, *arguments])
    printed = capsys.readouterr()
    assert ended.value.code == code
    assert not printed.out
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1, printed.err
    assert sorted(folder.rglob("*")) == before
    return printed.err
