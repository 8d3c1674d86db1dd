"""`python -m tests.fuzz`: many inputs through every door for files of strangers; `make fuzz`.

The same numbers give the same inputs. What is found is written to build/fuzz; put it under tests/fuzz/seeds
with the cure, and it is read in every run from then on.
"""

import argparse
import sys
from pathlib import Path

from tests.fuzz.reader import make
from tests.fuzz.running import run
from tests.fuzz.targets import NAMES, find

FOUND = Path("build/fuzz")


def say(what: str) -> None:
    """At once, also into a pipe."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def main() -> int:
    """Fuzz; answers 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", default=[], help=f"of {', '.join(NAMES)} [default: all]")
    parser.add_argument(
        "--inputs", type=int, default=100_000, help="of each target, of teachers a tenth [100000]"
    )
    parser.add_argument("--first", type=int, default=0, help="number of the first input [0]")
    parser.add_argument("--seed", type=int, default=1, help="another one makes other inputs [1]")
    options = parser.parse_args()
    found = 0
    for name in options.targets or NAMES:
        result = run(name, int(find(name).share * options.inputs), options.seed, first=options.first)
        say(
            f"{name:10} {result.inputs:>8,} inputs in {result.seconds:6.0f} s: {result.read:,} read, "
            f"{result.refused:,} refused, {result.deaths} readers died, {len(result.findings)} findings, "
            f"at most {result.grown_bytes >> 20} MiB taken"
        )
        for finding in result.findings:
            case = make(find(name), options.seed, finding.index)
            FOUND.mkdir(parents=True, exist_ok=True)
            path = FOUND / f"{name}-{options.seed}-{finding.index}.{case.kind}"
            path.write_bytes(case.content)
            say(f"--- {path}\n{finding.why}")
        found += len(result.findings)
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
