"""`make hostile`: send the corpus to a running node and compare what becomes of each case with what must."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.hostile.corpus import all_cases
from tests.hostile.node import Node
from tests.hostile.report import differences, table, write


def main() -> int:
    """Return 0 if everything is as expected."""
    parser = argparse.ArgumentParser(prog="make hostile", description=__doc__)
    parser.add_argument("--report", type=Path, help="Markdown file whose table is replaced")
    parser.add_argument("--only", default="", help="cases whose names contain this")
    args = parser.parse_args()
    cases = [case for case in all_cases() if args.only in case.name]
    with tempfile.TemporaryDirectory() as folder:
        node = Node(Path(folder))
        with node:
            begun = time.monotonic()
            found = node.judge(cases)
            seconds = time.monotonic() - begun
            complaints = node.complaints(cases)
    wrong = differences(cases, found)
    if args.report:
        write(args.report, table(cases, found, wrong))
    width = max(len(case.name) for case in cases)
    for case in cases:
        print(f"{case.name:{width}}  {case.expected!s:44}  {found[case.name]!s:44}  {'!' * (case.name in wrong)}")
    for name, problem in wrong.items():
        print(f"{name}: {problem}")
    for complaint in complaints:
        print(complaint)
    print(f"{len(cases)} cases in {seconds:.0f} s, {len(wrong)} differ, {len(complaints)} complaints about the node")
    return 1 if wrong or complaints else 0


if __name__ == "__main__":
    sys.exit(main())
