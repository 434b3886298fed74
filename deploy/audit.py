"""Ask for known weaknesses of locked packages with pip-audit; exit code 1 when there are any.

    python deploy/audit.py deploy/locks/default.txt

Where the index is a mirror without that service nothing can be said: that is reported in one line, with exit code 0,
so that a build without a way to the internet goes on. A build that must not go on sets AUDIT_REQUIRED=1.
"""

import json
import os
import subprocess
import sys


def main(lock: str) -> int:
    """Audit one file; return the exit code."""
    command = [sys.executable, "-m", "pip_audit", "-r", lock, "--no-deps", "--disable-pip", "--format", "json"]
    done = subprocess.run(  # noqa: S603 - arguments of this file
        [*command, "--progress-spinner", "off"], capture_output=True, text=True, check=False, timeout=600
    )
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        packages = []
    known = [one for one in packages if "skip_reason" not in one]
    if not known:
        reason = (done.stderr.strip().splitlines() or ["no answer"])[-1] if not packages else packages[0]["skip_reason"]
        sys.stdout.write(f"audit: skipped, the index offers no advisories here ({reason[:160]})\n")
        return 1 if os.environ.get("AUDIT_REQUIRED") == "1" else 0
    found = [(one["name"], one["version"], weakness) for one in known for weakness in one["vulns"]]
    for name, version, weakness in found:
        fixed = ", ".join(weakness["fix_versions"]) or "no version yet"
        sys.stdout.write(f"audit: {name} {version}: {weakness['id']}, fixed in {fixed}\n")
    sys.stdout.write(f"audit: {len(known)} of {len(packages)} packages looked up, {len(found)} known weaknesses\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
