"""`podero-async completion`: the scripts for shells."""

from __future__ import annotations

import subprocess
import sys

import pytest

from podero_async.cli._main import COMMANDS
from tests._support.commands import Call


async def test_bash(call: Call) -> None:
    """The script is valid bash, and contains the commands, their options, and the completion of file names."""
    ended = await call("completion", "bash")
    assert (ended.code, ended.err) == (0, "")
    assert subprocess.run(["bash", "-n"], input=ended.out.encode(), check=False).returncode == 0
    assert [name for name in COMMANDS if name not in ended.out] == []
    for option in ("--settle-days", "--requests-per-second", "--partition-by", "--plain"):
        assert option in ended.out
    assert "backfill___store_COMPGEN=_shtab_compgen_files" in ended.out


async def test_bash_completes(call: Call) -> None:
    """bash completes `back` to `backfill`, and `--settl` to `--settle-days`."""
    script = (await call("completion", "bash")).out
    for words, completed in ((["back"], "backfill"), (["backfill", "--settl"], "--settle-days")):
        line = ["podero-async", *words]
        asked = f"""{script}
COMP_WORDS=({" ".join(line)}); COMP_CWORD={len(line) - 1}
_shtab_podero_async 2>/dev/null; echo "${{COMPREPLY[@]}}"
"""
        out = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=False).stdout
        assert out.split() == [completed]


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
async def test_other_shells(call: Call, shell: str) -> None:
    """The script contains the commands and their options."""
    ended = await call("completion", shell)
    assert (ended.code, ended.err) == (0, "")
    assert [name for name in COMMANDS if name not in ended.out] == []
    assert "settle-days" in ended.out


async def test_without_shtab(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """If shtab is missing, one line names the extra to install."""
    monkeypatch.setitem(sys.modules, "shtab", None)
    ended = await call("completion", "bash")
    assert (ended.code, ended.out) == (2, "")
    assert "pip install 'podero_async[cli]'" in ended.complaint
