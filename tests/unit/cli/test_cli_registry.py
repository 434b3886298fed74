"""The registry of commands: help and light commands never load what they do not use."""

import subprocess
import sys

import pytest

from scp_node.cli.main import COMMANDS, main
from scp_node.jobs import database
from scp_node.jobs.migrations import migrate

_PROBE = """
import sys
from scp_node.cli.main import main
try:
    code = main({arguments!r})
except SystemExit as error:
    code = error.code
heavy = sorted({heavy!r} & set(sys.modules))
print("CODE", code, "HEAVY", heavy)
"""

_ENGINES = {"torch", "torchvision", "highdicom", "dbos", "cv2"}
_NOT_FOR_READING = _ENGINES | {
    # Nothing is logged, no object is read, nothing is sent, and the database is an SQLite file.
    "structlog",
    "numpy",
    "pydicom",
    "pynetdicom",
    "cryptography",
    "starlette",
    "psycopg",
    "sqlalchemy.dialects.postgresql",
    "rich.traceback",
    "scp_node.jobs.admin",
    "scp_node.jobs.export",
    "scp_node.audit.auditor",
}


def probe(*arguments: str, heavy: set[str] = _ENGINES) -> str:
    """Run main() in a fresh interpreter; its last line names exit code and heavy modules that were imported."""
    program = _PROBE.format(arguments=list(arguments), heavy=heavy)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    """Configuration of a node that was started once and has received nothing."""
    folder = tmp_path_factory.mktemp("node")
    url = f"sqlite:///{folder / 'node.sqlite'}"
    engine = database.open_engine(url)
    migrate(engine)
    engine.dispose()
    file = folder / "node.toml"
    file.write_text(f'[database]\nurl = "{url}"\n', encoding="utf-8")
    return str(file)


def test_help_imports_nothing_heavy():
    assert probe("--help") == "CODE 0 HEAVY []"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("jobs", "list"), 0),
        (("jobs", "list", "--json"), 0),
        # Of nothing that exists: what that takes is loaded all the same.
        (("jobs", "show", "1"), 1),
        (("audit", "show", "1"), 1),
        (("destinations",), 0),
    ],
)
def test_commands_that_read_load_only_what_they_use(config_file, arguments, code):
    assert probe(*arguments, "--config", config_file, heavy=_NOT_FOR_READING) == f"CODE {code} HEAVY []"


def test_help_names_every_command_and_the_exit_codes(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for command in COMMANDS:
        assert command.name in text
        assert command.summary in text
    assert "exit codes" in text


def test_unknown_command_is_one_sentence_and_code_2(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["ecko"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "ecko" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (("analyze", "chest.png", "--jsn"), "scp-node analyze"),
        (("jobs", "list", "--jsn"), "scp-node jobs list"),
        (("destinations", "resume", "pacs", "more"), "scp-node destinations resume"),
    ],
)
def test_an_unknown_option_points_to_the_help_of_its_own_command(arguments, command, capsys):
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{command}: ")
    assert arguments[-1] in error
    assert error.endswith(f"(see {command} --help)\n")


@pytest.mark.parametrize("module", ["pydantic", "config.load", "scp_node.cli.config"])
def test_ctrl_c_while_the_program_loads_is_no_traceback(module):
    """What comes before main() is Python's own start, and a few modules of its library."""
    program = f"""
import sys
from scp_node.cli.main import main

class Interrupting:
    def find_spec(self, name, *_):
        if name == {module!r}:
            raise KeyboardInterrupt

sys.modules.pop({module!r}, None)
sys.meta_path.insert(0, Interrupting())
sys.exit(main(["config", "show"]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "scp-node: interrupted\n")
    assert done.stdout == ""
