"""What a batch would do, item by item: pictures are read and planned, and nothing is written."""

from __future__ import annotations

from collections.abc import Iterator

from sr_upscale.errors import SrUpscaleError
from sr_upscale.pipeline.batch_plan import BatchPlan
from sr_upscale.pipeline.batch_run import ItemLedger, Outcome
from sr_upscale.pipeline.executor import LocalExecutor, job_for


def forecasts(plan: BatchPlan, executor: LocalExecutor, ledger: ItemLedger) -> Iterator[Outcome]:
    """Yields what would become of each item: ``planned`` with its forecast, ``skipped``, or ``failed``."""
    for item in plan.items:
        try:
            if ledger.is_done(item):
                yield Outcome(item=item, status="skipped")
                continue
            details = job_for(executor.format_for(item)).forecast(executor.load(item), executor.upscalers[0])
            yield Outcome(item=item, status="planned", seconds=details["estimated_seconds"], details=details)
        except SrUpscaleError as error:
            yield Outcome(item=item, status="failed", error=error)
        finally:
            ledger.release(item)
