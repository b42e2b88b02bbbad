"""What a run says of itself: a line at every validation, and means at its end."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sr_upscale.formatting import duration
from sr_upscale.training.run import Progress


class Figures:
    """Gathers the progress of a run.

    Attributes:
        scores: Of the last validation, rounded.
    """

    def __init__(self) -> None:
        self.scores: dict[str, float] = {}
        self._last: Progress | None = None
        self._time: dict[str, list[float]] = {}

    def add(self, progress: Progress) -> str | None:
        """Takes a report in.

        Returns:
            The line of its validation; None where there was none.
        """
        self._last = progress
        for key in ("steps_per_s", "network_share", "data_s"):
            self._time.setdefault(key, []).append(getattr(progress, key))
        if progress.scores is None:
            return None
        self.scores = {key: round(value, 4) for key, value in asdict(progress.scores).items() if value is not None}
        distance = f"  distance {progress.scores.distance:.3f}" if progress.scores.distance is not None else ""
        for name in ("teacher_l1", "teacher_distance"):
            if name in self.scores:
                distance += f"  {name.replace('_', ' ')} {self.scores[name]:.3f}"
        d_loss = f"  d {progress.losses['d']:.3f}" if "d" in progress.losses else ""
        return (
            f"{duration(progress.elapsed_s)}  {progress.stage} {progress.step}  "
            f"loss {progress.losses['loss']:.5f}{d_loss}  lr {progress.lr:.2e}  {progress.steps_per_s:.1f} steps/s  "
            f"validation {progress.scores.psnr:.2f} dB  SSIM {progress.scores.ssim:.4f}{distance}"
        )

    def title(self, progress: Progress) -> str:
        """Says in a few words where the run is."""
        at = f"{progress.stage} step {progress.step}"
        return f"{at} loss {progress.losses['loss']:.4f} {progress.steps_per_s:.1f}/s"

    def means(self) -> dict[str, float]:
        """Returns means over the run: steps a second, share of the network, seconds that a batch took to make."""
        return {key: sum(values) / len(values) for key, values in self._time.items()}

    def speed(self) -> str:
        """Says in a sentence where the time went."""
        if not self._time:
            return "too short to measure its speed"
        f = self.means()
        return (
            f"{f['steps_per_s']:.2f} steps/s; the network had its batch {f['network_share']:.1%} of the time; "
            f"making a batch took {f['data_s'] * 1000:.1f} ms of one core, "
            f"{f['data_s'] * f['steps_per_s']:.1%} of a step"
        )

    def result(self) -> dict[str, Any]:
        """Returns what ``--json`` shows: the last stage and step, scores, and means over the run."""
        if self._last is None:
            return {"scores": self.scores}
        speed = {key: round(value, 4) for key, value in self.means().items()}
        return {"stage": self._last.stage, "step": self._last.step, "scores": self.scores, **speed}
