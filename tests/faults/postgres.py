"""A private PostgreSQL cluster in a folder of its own, on a port of its own."""

import getpass
import os
import pwd
import shutil
import subprocess
import tempfile
import weakref
from pathlib import Path

from tests.faults.processes import Program, environment, wait_until


def binaries() -> Path | None:
    """Return the folder of PostgreSQL's programs, as Debian or the PATH has them; None when it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: int(file.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else None


class Cluster:
    """A database server that a test may kill and start again."""

    def __init__(self, folder: Path, port: int) -> None:
        programs = binaries()
        if programs is None:
            raise RuntimeError("PostgreSQL is not installed (apt-get install postgresql)")
        self._programs = programs
        self._port = port
        folder.mkdir(parents=True, exist_ok=True)
        log = folder.parent / "postgresql.log"
        self._user = getpass.getuser()
        self._prefix: list[str] = []
        if os.geteuid() == 0:
            # The server refuses to run as root.
            self._user = "postgres"
            account = pwd.getpwnam(self._user)
            # Folders of tests are private to root, and every start of pytest makes them so again: a server whose data
            # lie there is cut off from them.
            folder = Path(tempfile.mkdtemp(prefix="scp-node-postgresql-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            os.chown(folder, account.pw_uid, account.pw_gid)
            self._prefix = ["setpriv", "--reuid", self._user, "--regid", str(account.pw_gid), "--clear-groups"]
        self._data = folder / "data"
        self.program = Program(
            "postgresql",
            [
                *self._prefix,
                str(programs / "postgres"),
                "-D",
                str(self._data),
                "-p",
                str(port),
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "unix_socket_directories=",
                "-c",
                "max_connections=300",
            ],
            log,
        )

    @property
    def url(self) -> str:
        return f"postgresql://{self._user}@127.0.0.1:{self._port}/postgres"

    def create(self) -> None:
        """Make the cluster; it trusts whoever connects from this machine."""
        subprocess.run(
            [*self._prefix, str(self._programs / "initdb"), "-D", str(self._data), "-A", "trust", "-E", "UTF8"],
            check=True,
            capture_output=True,
            cwd="/",
            env=environment(),
        )

    def start(self) -> None:
        """Start the server and wait until it answers; after a kill it recovers by itself."""
        self.program.start()
        wait_until(self._answers, 120, "an answer of PostgreSQL")

    def size_bytes(self) -> int:
        """Return what the database takes on the disk."""
        import psycopg

        with psycopg.connect(self.url) as connection:
            row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
        assert row is not None
        return int(row[0])

    def _answers(self) -> bool:
        if not self.program.is_alive:
            # After a kill, sessions of the former server take a moment to see that it is gone; until then it refuses.
            log = self.program.log.read_text(errors="replace")
            if "is still in use" not in log[-2000:] and "is empty" not in log[-2000:]:
                raise RuntimeError(f"PostgreSQL ended: {log[-2000:]}")
            self.program.start()
        ready = [str(self._programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(self._port), "-q"]
        return subprocess.run(ready, check=False).returncode == 0
