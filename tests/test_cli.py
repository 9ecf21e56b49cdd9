"""The command `fedmepd`: its list of commands, its exit codes, and that it imports no more than it needs."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from nnunet_fedmepd import __version__, cli
from nnunet_fedmepd.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[1]


def install_command(monkeypatch: pytest.MonkeyPatch, run: object) -> None:
    """Give `fedmepd` one more command, `probe NUMBER`, that does what `run` does."""
    module = ModuleType("probe_command")
    module.__dict__.update(add_arguments=lambda parser: parser.add_argument("number", type=int), run=run)
    monkeypatch.setitem(sys.modules, "probe_command", module)
    monkeypatch.setitem(cli.COMMANDS, "probe", cli.Command("probe_command", "what this test needs"))


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_listed_command_exists_and_takes_arguments(name: str) -> None:
    module = importlib.import_module(cli.COMMANDS[name].module)
    module.add_arguments(argparse.ArgumentParser())
    assert callable(module.run)


def test_help_lists_every_command_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0
    assert all(f"{name} {command.help}" in printed for name, command in cli.COMMANDS.items())


def test_help_imports_neither_torch_nor_nnunet_nor_any_command() -> None:
    code = (
        "import sys, nnunet_fedmepd.cli as cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('torch', 'nnunetv2', 'numpy') or '.commands' in m])"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert (stop.value.code, capsys.readouterr().out) == (0, f"nnunet-fedmepd {__version__}\n")


def test_a_command_gets_its_arguments_and_gives_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    install_command(monkeypatch, run=lambda args: args.number)
    assert cli.main(["probe", "7"]) == 7


def test_a_deliberate_error_is_a_message_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(args: argparse.Namespace) -> int:
        raise ConfigurationError(f"expected 3 sites, found {args.number}")

    install_command(monkeypatch, run=refuse)
    assert cli.main(["probe", "2"]) == 2
    assert capsys.readouterr().err == "fedmepd: expected 3 sites, found 2\n"


def test_an_error_that_is_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    install_command(monkeypatch, run=lambda args: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["probe", "1"])


def test_an_interrupted_command_ends_with_exit_code_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(args: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    install_command(monkeypatch, run=interrupt)
    assert cli.main(["probe", "1"]) == 130
    assert capsys.readouterr().err == "fedmepd: interrupted\n"


@pytest.mark.parametrize("arguments", [[], ["demonstrate"]], ids=["no command", "unknown command"])
def test_without_a_known_command_the_usage_is_shown_with_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "usage: fedmepd" in capsys.readouterr().err
