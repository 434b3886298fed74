"""How much each role of a site does on this machine: receive, analyse, deliver; each measured while the others rest.

python -m benchmarks.roles [--instances 60] [--rows 1024] [--database postgresql|sqlite] [--models resnet18 ...]

The sender and the destination run on the same machine and take their part of its cores.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import sqlalchemy as sa

from config.analysis import AnalysisSettings
from config.results import SecondaryCaptureSettings
from scp_node.demo.phantoms import chest_array, cr
from scp_node.jobs import database
from scp_node.jobs.tables import instance
from tests.faults.installation import Installation
from tests.faults.processes import Program, scp_node, wait_until
from tests.faults.records import read

DESTINATION = "first"
LIMIT_S = 1800.0


def _radiographs(folder: Path, count: int, rows: int) -> Path:
    folder.mkdir()
    seed = time.time_ns()
    columns = rows * 7 // 8
    noise = np.random.default_rng(seed)
    picture = chest_array(rows, columns, seed=1)
    for number in range(count):
        grain = noise.integers(0, 8, (rows, columns), dtype=np.uint16)
        source = cr(4095 - np.minimum(picture + grain, 4095), identity=f"roles-{seed}-{number}")
        source.save_as(folder / f"{number:05}.dcm", enforce_file_format=True)
    return folder


def _role(site: Installation, role: str) -> Program:
    return Program(role, scp_node("serve", "--role", role), site.folder / f"{role}.log", site.variables)


def _logged(program: Program, event: str) -> None:
    wait_until(lambda: f'"event": "{event}"' in program.log.read_text(), 600, f"{event} of {program.name}")


def _receive(site: Installation, files: Path, associations: int) -> dict[str, float]:
    receiver = _role(site, "receiver")
    receiver.start()
    _logged(receiver, "receiving")
    (began_cpu_s,) = _cpu(receiver)
    sender = site.sender(files, associations=associations)
    sender.start()
    assert sender.wait(LIMIT_S) == 0
    answers = read(site.record("sender"))
    assert all(answer["status"] == 0 for answer in answers), Counter(answer["status"] for answer in answers)
    duration_s = max(answer["at"] for answer in answers) - min(answer["begun"] for answer in answers)
    (ended_cpu_s,) = _cpu(receiver)
    receiver.terminate()
    size_bytes = sum(file.stat().st_size for file in files.iterdir())
    return {
        "instances_per_s": round(len(answers) / duration_s, 1),
        "megabytes_per_s": round(size_bytes / duration_s / 1e6, 1),
        "answer_p50_ms": round(1000 * statistics.median(a["at"] - a["begun"] for a in answers), 1),
        "cpu_s_per_instance": round((ended_cpu_s - began_cpu_s) / len(answers), 4),
    }


def _cpu(program: Program) -> tuple[float, ...]:
    processes = [psutil.Process(program.pid), *program.children()]
    return tuple(sum(process.cpu_times()[:2]) for process in processes)


def _analyse(site: Installation, count: int) -> tuple[dict[str, float], Program]:
    worker = _role(site, "worker")
    worker.start()
    _logged(worker, "child ready")
    began_cpu = _cpu(worker)
    engine = database.open_engine(site.settings.database.url)

    def stamps() -> list[float]:
        with engine.connect() as connection:
            return sorted(
                connection.execute(
                    sa.select(instance.c.analysed_at).where(instance.c.analysed_at.is_not(None))
                ).scalars()
            )

    wait_until(lambda: len(stamps()) >= count, LIMIT_S, "the last analysis", look_s=0.5)
    times = stamps()
    cpu = [after - before for after, before in zip(_cpu(worker), began_cpu, strict=True)]
    engine.dispose()
    return {
        "instances_per_s": round((count - 1) / (times[-1] - times[0]), 2),
        "worker_cpu_s_per_instance": round(cpu[0] / count, 3),
        "child_cpu_s_per_instance": round(sum(cpu[1:]) / count, 3),
    }, worker


def _deliver(site: Installation, count: int, worker: Program) -> dict[str, float]:
    began_cpu_s = _cpu(worker)[0]
    site.destinations[DESTINATION].start()
    assert site.wait_final(count, 300)
    ended_cpu_s = _cpu(worker)[0]
    times = sorted(row["at"] for row in read(site.record(DESTINATION)))
    return {
        "objects_per_instance": round(len(times) / count, 1),
        "objects_per_s": round((len(times) - 1) / (times[-1] - times[0]), 1),
        "cpu_s_per_instance": round((ended_cpu_s - began_cpu_s) / count, 4),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=60)
    parser.add_argument("--rows", type=int, default=1024, help="rows of each radiograph; columns are 7/8 of it")
    parser.add_argument("--associations", type=int, default=4)
    parser.add_argument("--database", choices=["postgresql", "sqlite"], default="postgresql")
    parser.add_argument("--models", nargs="+", default=list(AnalysisSettings().models))
    parser.add_argument("--runtime", default=None, help="analysis.runtime; default: as shipped")
    arguments = parser.parse_args()
    # The results that are shipped as default, not the small ones of fault runs.
    shipped = SecondaryCaptureSettings()
    settings = {"results": {"secondary_capture": {"singles": shipped.singles, "panel_size": shipped.panel_size}}}
    if arguments.runtime:
        settings["analysis"] = {"runtime": arguments.runtime}
    with tempfile.TemporaryDirectory(prefix="scp-node-roles-") as name:
        site = Installation(
            Path(name),
            database=arguments.database,
            models=arguments.models,
            destinations=(DESTINATION,),
            settings=settings,
        )
        try:
            files = _radiographs(Path(name) / "files", arguments.instances, arguments.rows)
            report = {
                "machine": {"cores": os.cpu_count(), "load": os.getloadavg()[0]},
                "instances": arguments.instances,
                "models": arguments.models,
                "database": arguments.database,
                "receive": _receive(site, files, arguments.associations),
            }
            report["analyse"], worker = _analyse(site, arguments.instances)
            report["deliver"] = _deliver(site, arguments.instances, worker)
            report["machine"]["load_at_end"] = os.getloadavg()[0]
            worker.terminate()
        finally:
            site.stop()
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
