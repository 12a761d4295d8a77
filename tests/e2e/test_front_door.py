"""The command line itself: every command says what it does, and unforeseen errors are kept."""

import os
import subprocess

import pytest

from bot_bottle.cli import main as front
from support.place import program


@pytest.mark.parametrize("command", front.names())
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as ended:
        front.command_parser(command).parse_args(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "usage: bot-bottle" in shown
    assert "--json" in shown


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_completion_script_is_a_script_and_knows_every_command(shell):
    done = subprocess.run([program(), "completion", shell], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in front.names())
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=done.stdout, text=True).returncode == 0


def test_bash_completes_commands_and_the_names_of_agents(tmp_path):
    home = tmp_path / "home"
    (home / ".bot-bottle/agents").mkdir(parents=True)
    (home / ".bot-bottle/agents/fixer.md").write_text("---\n---\n")
    script = f"""
source <({program()} completion bash)
complete -p bot-bottle >/dev/null || exit 1
COMP_WORDS=(bot-bottle sta); COMP_CWORD=1; _shtab_bot_bottle bot-bottle sta; echo "commands: ${{COMPREPLY[*]}}"
COMPREPLY=(); COMP_WORDS=(bot-bottle start fi); COMP_CWORD=2; _shtab_bot_bottle bot-bottle fi; echo "agents: ${{COMPREPLY[*]}}"
"""
    env = {**os.environ, "HOME": str(home), "PATH": f"{program().parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=env, cwd=tmp_path)
    assert "commands: start" in done.stdout, done.stderr
    assert "agents: fixer" in done.stdout, done.stdout + done.stderr


def test_an_error_that_nobody_foresaw_is_one_line_and_a_file(own_home, capsys, monkeypatch):
    monkeypatch.setattr(front, "dispatch", lambda *_: 1 / 0)
    assert front.main(["list"]) == 70
    said = capsys.readouterr().err
    assert "Traceback" not in said
    [kept] = (own_home / ".local/state/bot-bottle/crashes").iterdir()
    assert str(kept) in said
    assert "ZeroDivisionError" in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600


def test_a_reader_that_goes_away_is_no_error():
    done = subprocess.run(
        f"{program()} --help | true; exit ${{PIPESTATUS[0]}}", shell=True, executable="/bin/bash"
    )
    assert done.returncode in (0, 141)
