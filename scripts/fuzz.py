"""Feeds hostile bytes to everything that reads files or answers of others (Atheris, coverage-guided).

    python scripts/fuzz.py --seconds 600                    # every target, so long each
    python scripts/fuzz.py --target decode --seconds 7200 --executions 1000000    # whichever comes first
    python scripts/fuzz.py --mutants 50                     # no Atheris: so many mutants of each target, by chance
    python scripts/fuzz.py --target decode finds/FILE       # one input again, with its traceback

Whatever comes, a reader gives a result or an error of `sr_upscale.errors` with an exit code other than 1 (internal).
Any other exception is a find, and so are a hang over 10 s, more than 3 GiB of memory, and a crash. Finds are kept in
`finds/`, one for each place in the code, and any makes the run fail.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import logging
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

from sr_upscale.errors import SrUpscaleError

TARGETS = ("decode", "weights", "checkpoint", "recipe", "manifest", "download")
HANG_S, MEMORY_MIB, MAX_BYTES, MOST_SAID = 10, 3072, 1 << 16, 50_000
LAST_MIB = 2 * MEMORY_MIB
"""Where the system refuses memory, so that a find does not take the machine's: Atheris looks once a second."""


def fuzz(name: str, seconds: int, executions: int, corpus: Path, finds: Path) -> None:
    """Fuzzes a target in this process, until the time is over or it crashes. It does not return."""
    import atheris

    with atheris.instrument_imports(include=["sr_upscale", "PIL"]):
        from fuzz_targets import TARGETS, attempted
    target = TARGETS[name]
    seeds = target.seeds()
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)

    def one(data: bytes) -> None:
        with contextlib.redirect_stderr(None):
            found = find_of(lambda: attempted(target, data))
        if found:
            keep(data, name, found, finds)

    def mutate(data: bytes, most: int, _seed: int) -> bytes:
        return target.mend(atheris.Mutate(data, most))[:most]

    arguments = [
        sys.argv[0],
        str(corpus),
        f"-max_total_time={seconds}",
        f"-runs={executions}",
        f"-timeout={HANG_S}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-max_len={max(MAX_BYTES, *(2 * len(seed) for seed in seeds))}",  # a cut seed would never be read through
        "-len_control=0",
        "-print_final_stats=1",
        f"-artifact_prefix={finds}/{name}-",
    ]
    atheris.Setup(arguments, one, custom_mutator=mutate)
    atheris.Fuzz()


def find_of(attempt: object) -> str:
    """Runs an attempt, and returns the traceback of an exception that users must not meet, or nothing."""
    try:
        attempt()  # type: ignore[operator]
    except SrUpscaleError as error:
        return traceback.format_exc() if error.exit_code == 1 else ""
    except Exception:
        return traceback.format_exc()
    return ""


def keep(data: bytes, name: str, found: str, finds: Path) -> None:
    """Keeps a find, unless there is one of the same exception at the same place."""
    places = re.findall(r'File ".*?sr_upscale/(\S+)", line (\d+)', found)[-1:]
    kind = found.strip().splitlines()[-1].split(":")[0]
    key = hashlib.sha256(f"{kind} {places}".encode()).hexdigest()[:12]
    path = finds / f"{name}-{key}"
    if not path.exists():
        path.write_bytes(data)
        path.with_suffix(".txt").write_text(found)


def mutants(name: str, count: int, finds: Path) -> int:
    """Feeds a target with its seeds, which must be taken or refused like any file, and with mutants of them.

    A mutant has some bytes changed, or a piece cut out or doubled.

    Returns:
        The executions.
    """
    from fuzz_targets import TARGETS, attempted

    target, chance = TARGETS[name], random.Random(name)
    seeds = target.seeds()
    inputs = seeds + [_mutant(chance.choice(seeds), chance) for _ in range(count)]
    for data in inputs:
        mended = target.mend(data)
        if found := find_of(lambda mended=mended: attempted(target, mended)):
            keep(mended, name, found, finds)
    return len(inputs)


def _mutant(seed: bytes, chance: random.Random) -> bytes:
    out = bytearray(seed)
    for _ in range(chance.choice((1, 3, 10))):
        start = chance.randrange(len(out) + 1)
        stop = min(len(out), start + chance.choice((1, 2, 4, 30)))
        out[start:stop] = chance.choice((b"", chance.randbytes(stop - start), bytes(out[start:stop]) * 2, b"\xff" * 4))
    return bytes(out)


def again(name: str, path: Path) -> int:
    """Reads one input again, and prints what happens."""
    from fuzz_targets import TARGETS, attempted

    found = find_of(lambda: attempted(TARGETS[name], path.read_bytes()))
    sys.stdout.write(found or "a result, or an error that users may meet\n")
    return 1 if found else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", nargs="?", type=Path, help="a find to be read again")
    parser.add_argument("--target", choices=TARGETS, action="append", help="what is fed; may be repeated; all without")
    parser.add_argument("--seconds", type=int, default=600, help="for each target")
    parser.add_argument("--executions", type=int, default=-1, help="most of each target; -1 for no limit")
    parser.add_argument("--mutants", type=int, help="random mutants of each target, instead of Atheris")
    parser.add_argument("--finds", type=Path, default=Path("finds"), help="folder of finds")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.target or TARGETS
    warnings.simplefilter("ignore")
    logging.disable()
    os.environ |= {"OMP_NUM_THREADS": "1", "VIPS_CONCURRENCY": "1"}  # inputs are small: threads only wait
    resource.setrlimit(resource.RLIMIT_DATA, (LAST_MIB << 20, LAST_MIB << 20))
    if options.input:
        return again(names[0], options.input)
    options.finds.mkdir(exist_ok=True)
    if options.inside:
        fuzz(names[0], options.seconds, options.executions, options.inside, options.finds)
    bad = 0
    for name in names:
        known = set(options.finds.glob(f"{name}-*"))
        executions, ended = (
            (mutants(name, options.mutants, options.finds), "")
            if options.mutants
            else campaign(name, options.seconds, options.executions, options.finds)
        )
        new = sorted(path.name for path in set(options.finds.glob(f"{name}-*")) - known if path.suffix != ".txt")
        bad += len(new) + (ended != "")
        sys.stdout.write(f"{name:11} {executions:9} executions, {len(new)} finds {' '.join(new)} {ended}\n")
        sys.stdout.flush()
    return 1 if bad else 0


def campaign(name: str, seconds: int, most: int, finds: Path) -> tuple[int, str]:
    """Fuzzes a target in processes of its own; a new one takes the place of one that hung or crashed.

    Returns:
        The executions, and the last words where it could not run at all.
    """
    end, executions = time.monotonic() + seconds, 0
    with tempfile.TemporaryDirectory() as corpus:
        while (left := round(end - time.monotonic())) > 0 and (most < 0 or executions < most):
            limits = ["--seconds", str(left), "--executions", str(max(most - executions, -1))]
            words = ["--target", name, *limits, "--finds", str(finds), "--inside", corpus]
            ran = subprocess.run([sys.executable, __file__, *words], capture_output=True, check=False)
            said = ran.stderr.decode(errors="replace")
            done = re.findall(r"stat::number_of_executed_units:\s*(\d+)", said) or re.findall(r"^#(\d+)", said, re.M)
            if not done:
                return executions, said.strip()[-500:]
            executions += int(done[-1])
            if crashed := re.search(r"Test unit written to (\S+)", said):
                Path(f"{crashed[1]}.txt").write_text(said[-MOST_SAID:])  # where, and what was said before
    return executions, ""


if __name__ == "__main__":
    sys.exit(main())
