"""Fuzz what mpsref reads: ``python -m tests.fuzz --count N``."""

from __future__ import annotations

import argparse
import sys
import tempfile

from tests.fuzz.cases import Fuzzer, Summary


def main():
    """Run cases and print what came of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz the files that mpsref reads.")
    parser.add_argument("--count", metavar="N", type=int, default=2000, help="how many cases (default 2000)")
    parser.add_argument("--first", metavar="I", type=int, default=0, help="number of the first case (default 0)")
    parser.add_argument("--seed", metavar="N", type=int, default=1, help="makes other cases (default 1)")
    parser.add_argument("--processes", action="store_true", help="run each case in a process of its own")
    options = parser.parse_args()

    summary = Summary()
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(folder, options.seed)
        for number in range(options.first, options.first + options.count):
            summary.add(number, fuzzer.apart(number) if options.processes else fuzzer.here(number))
            if number % 1000 == 999:
                print(f"{number + 1 - options.first:,} cases, {len(summary.broken)} broke a rule", file=sys.stderr)
    print(summary.text())
    return bool(summary.broken)


if __name__ == "__main__":
    sys.exit(main())
