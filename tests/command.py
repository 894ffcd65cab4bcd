"""The command line, called as a user calls it, in this process."""

from __future__ import annotations

import pytest

from permgraph.cli import main


def run(*words: object, code: int = 0) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["permgraph", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
    assert end.value.code == code
