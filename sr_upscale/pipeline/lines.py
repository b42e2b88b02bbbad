"""What was done to pictures, or would be: rows for programs, lines for people. Does not import torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sr_upscale.formatting import addressed, duration, mebibytes, shown
from sr_upscale.pipeline.batch_run import Outcome


def row_of(outcome: Outcome) -> dict[str, Any]:
    """Returns what became of an item, ready for JSON (docs/scripts.md)."""
    row = {"status": outcome.status, "input": addressed(outcome.item.source), "output": addressed(outcome.item.target)}
    failure = {} if outcome.error is None else {"error": str(outcome.error), "exit_code": outcome.error.exit_code}
    return row | failure | dict(outcome.details)


def counts_of(outcomes: Iterable[Outcome], done: str = "done") -> dict[str, int]:
    """Counts outcomes by their status: those of `done`, ``skipped`` and ``failed``."""
    statuses: list[str] = [outcome.status for outcome in outcomes]
    return {status: statuses.count(status) for status in (done, "skipped", "failed")}


def counts_in_words(counts: Mapping[str, int]) -> str:
    """Puts `counts_of` into ``12 done, 3 skipped, 0 failed``."""
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def made_in_words(source: Path | str, target: Path | str, done: Mapping[str, Any]) -> str:
    """Puts what `job.run` says into ``a.jpg -> b.png  400x300  photo-x4  bfloat16 on cpu  1.2 s``."""
    made = f"{shown(source)} -> {shown(target)}  {_by(done['output_size'])}  {', '.join(done['models'])}"
    return f"{made}  {done['dtype']} on {done['device']}  {duration(done['seconds'])}"


def plan_in_words(name: str, target: Path | str, planned: Mapping[str, Any]) -> str:
    """Puts what `job.forecast` says into a line.

    Args:
        name: What the picture is called.
        target: Where its output would go.
        planned: The forecast.
    """
    frames = f", {planned['frames']} frames" if planned["frames"] > 1 else ""
    return (
        f"{name} {_by(planned['input_size'])} -> {shown(target)} {_by(planned['output_size'])}{frames}: "
        f"{' then '.join(planned['models'])}, {cut_in_words(planned)}, {planned['dtype']} on {planned['device']}, "
        f"about {mebibytes(planned['memory_bytes'])} and {duration(planned['estimated_seconds'])}"
    )


def cut_in_words(described: Mapping[str, Any]) -> str:
    """Puts what `job.describe` says of the cut into ``12 strips of 16 rows``, ``4 tiles of 256``, or both."""
    parts = []
    if rows := described["strip_rows"]:
        parts.append(f"{described['strips']} strip{'s' * (described['strips'] != 1)} of {_listed(rows)} rows")
    if sizes := described["tile_size"]:
        of = f" of {_listed(sizes)}" if any(sizes) else ""
        parts.append(f"{described['tiles']} tile{'s' * (described['tiles'] != 1)}{of}")
    return " and ".join(parts)


def _by(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def _listed(numbers: Sequence[int]) -> str:
    return " and ".join(map(str, numbers))
