"""`make fuzz MINUTES=n`: both targets one after the other, with a corpus that stays between runs in .fuzz/."""

import argparse
import subprocess
import sys
from pathlib import Path

TARGETS = ("pictures", "associations")
_APART = ("/bin/sh", "-c", '"$@"; exit $?', "sh")
"""Linux counts the memory of who starts a program into that program's peak, by which libFuzzer finds excess; a small
shell in between has little of it, and the fuzzer's process is its child."""
ROOT = Path(__file__).parents[2]


def fuzz(target: str, folder: Path, seconds: float, *options: str) -> subprocess.CompletedProcess[str]:
    """Run one target from its own seeds.

    Parameters
    ----------
    folder
        Gets the corpus, and an input for each finding: its name begins with ``crash-``, ``timeout-`` or ``oom-``.
    options
        Of libFuzzer.
    """
    corpus = folder / target
    corpus.mkdir(parents=True, exist_ok=True)
    program = [sys.executable, "-m", f"tests.fuzz.{target}"]
    subprocess.run([*program, "--seeds", str(corpus)], cwd=ROOT, check=True, capture_output=True)
    limits = ["-timeout=60", "-rss_limit_mb=3000", "-max_len=16384", "-print_final_stats=1"]
    return subprocess.run(
        [
            *_APART,
            *program,
            f"-max_total_time={seconds:.0f}",
            f"-artifact_prefix={folder}/",
            *limits,
            *options,
            str(corpus),
        ],
        cwd=ROOT,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def main() -> int:
    """Return 0 if nothing was found."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="for each target")
    args = parser.parse_args()
    worst = 0
    for target in TARGETS:
        done = fuzz(target, ROOT / ".fuzz", 60 * args.minutes)
        shown = [line for line in done.stdout.splitlines() if not line.startswith("INFO: Instrumenting")]
        print(target, *shown[-40:], sep="\n")
        worst = max(worst, done.returncode)
    return 1 if worst else 0


if __name__ == "__main__":
    sys.exit(main())
