"""A finished run -> `weights/NAME.safetensors` and its card `weights/NAME.md`, with measured scores.

    python scripts/publish_weights.py runs/psnr-x4 --benchmarks FOLDER --license MIT --data "..."

FOLDER holds the data of github.com/jbhuang0604/SelfExSR: ``**/Set5/image_SRF_4/img_001_SRF_4_{HR,LR}.png``.
The scores are mean PSNR on Y of the 8-bit output from the published LR files, a border of one scale left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from sr_upscale.checkpoint import WeightsInfo, load_generator, read_info, save_generator
from sr_upscale.color import to_pixels, to_tensor
from sr_upscale.metrics import psnr
from sr_upscale.resize import resize
from sr_upscale.store import resolve_weights
from sr_upscale.upscaler import Upscaler

SETS = ("Set5", "Set14")


def main() -> None:
    """Scores, stamps, writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--benchmarks", type=Path, required=True)
    parser.add_argument("--license", default="MIT")
    parser.add_argument("--data", default="")
    parser.add_argument("--out", type=Path, help="without it the scores are only printed")
    arguments = parser.parse_args()
    (source,) = arguments.run.glob("*.safetensors")
    model, info = load_generator(source)
    scale = model.config.scale
    scores: dict[str, Any] = dict(info.scores)
    for name in SETS:
        scores[name.lower()] = score_set(source, arguments.benchmarks, name, scale)
        sys.stdout.write(f"{info.name} {name} x{scale}: {json.dumps(scores[name.lower()])}\n")
    if arguments.out is None:
        return
    recipe = with_ancestors(dict(info.recipe))
    info = dataclasses.replace(info, scores=scores, license=arguments.license, data=arguments.data, recipe=recipe)
    save_generator(arguments.out / source.name, model, info)
    log_file = arguments.run / "train.jsonl"  # an average of runs has none
    log = [json.loads(line) for line in log_file.read_text().splitlines()] if log_file.exists() else []
    (arguments.out / f"{info.name}.md").write_text(card(info, log), encoding="utf-8")


def score_set(weights: Path, benchmarks: Path, name: str, scale: int) -> dict[str, float]:
    """Mean PSNR on Y in fp32 and in the number type that users get here, and of bicubic."""
    exact, usual = Upscaler(weights, dtype="fp32", tile_size=0), Upscaler(weights)
    rows = []
    for path in sorted(benchmarks.glob(f"**/{name}/image_SRF_{scale}/*_HR.png")):
        hr, lr = (np.asarray(Image.open(each).convert("RGB")) for each in (path, str(path).replace("_HR", "_LR")))
        bicubic = to_pixels(resize(to_tensor(lr), hr.shape[:2]), np.dtype(np.uint8))
        rows.append([measure(sr, hr, scale) for sr in (exact(lr), usual(lr), bicubic)])
    if not rows:
        sys.exit(f"no pictures of {name} at x{scale} below {benchmarks}")
    means = np.mean(rows, axis=0)
    return {
        key: round(float(value), 3)
        for key, value in zip(("psnr_y", f"psnr_y_{_short(usual)}_tiles", "psnr_y_bicubic"), means, strict=True)
    }


def measure(sr: np.ndarray, hr: np.ndarray, scale: int) -> float:
    """PSNR on Y, in dB."""
    return psnr(to_tensor(sr), to_tensor(hr), crop_border=scale, y_channel=True).item()


def _short(upscaler: Upscaler) -> str:
    return {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[upscaler.choice.dtype]


def with_ancestors(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe with, under ``start``, the recipe of the weights that it started from, and so on."""
    if recipe["init"] and "start" not in recipe:
        start = read_info(resolve_weights(recipe["init"]))
        recipe["start"] = with_ancestors({**start.recipe, "weights": start.name})
    return recipe


def card(info: WeightsInfo, log: list[dict[str, Any]]) -> str:
    """Markdown for people; every figure comes out of the header or the log."""
    curve = [entry for entry in log if entry.get("validation_psnr") is not None and "fraction" in entry]
    shown = curve[:: max(1, len(curve) // 8)]
    lines = [
        f"# {info.name}",
        "",
        f"{info.description}.",
        "",
        f"* Licence of the weights: {info.license}",
        f"* Trained on: {info.data}",
        f"* Made: {info.date}, by `sr-upscale train` on two CPU cores with bf16 autocast, in these runs:",
        "",
        "| run | started from | steps | minutes | patch | batch | highest lr | loss |",
        "|---|---|---|---|---|---|---|---|",
        *(_run_row(number, each) for number, each in enumerate(reversed(_lineage(info)), start=1)),
        *_averages(info),
        "",
        f"* Architecture: {json.dumps(dict(info.config))}",
        "",
        "## Scores",
        "",
        "PSNR on Y in dB, 8-bit output from the MATLAB LR files of SelfExSR's repository, border of one scale left",
        "out, gray pictures read as RGB. `fp32` is the whole picture at once, the other what `sr-upscale` does by",
        "default on the machine that measured.",
        "",
        "| set | fp32 | default | bicubic |",
        "|---|---|---|---|",
    ]
    for name in SETS:
        values = list(info.scores[name.lower()].values())
        lines.append(f"| {name} | {values[0]:.2f} | {values[1]:.2f} | {values[2]:.2f} |")
    if "validation" in info.scores:
        validation = info.scores["validation"]
        lines += ["", f"Validation on {validation['pictures']} held-out training pictures: {validation['psnr_y']} dB."]
    if shown:
        lines += ["", "The last run:", "", "| step | minutes | loss | validation PSNR, dB |", "|---|---|---|---|"]
    for each in shown:
        minutes, score = each["elapsed_s"] / 60, each["validation_psnr"]
        lines.append(f"| {each['step']} | {minutes:.0f} | {each['loss']:.4f} | {score:.2f} |")
    lines += [
        "",
        "## Limits",
        "",
        "* Taught on clean pictures made smaller by bicubic resampling. JPEG blocks, noise and blur of real files are",
        "  taken for detail and enlarged.",
        "* Taught by pixel losses alone: it never invents texture; detail that the input does not hold stays smooth.",
        "* Nobody chose training pictures for faces, text or line art; expect less there.",
        "",
    ]
    return "\n".join(lines)


def _lineage(info: WeightsInfo) -> list[dict[str, Any]]:
    """Recipes, the newest first."""
    recipe = {**info.recipe, "weights": info.name}
    found = [recipe]
    while "start" in recipe:
        recipe = recipe["start"]
        found.append(recipe)
    return found


def _averages(info: WeightsInfo) -> list[str]:
    """A sentence for each recipe whose weights were averaged with others (`scripts/average_weights.py`)."""
    lineage = _lineage(info)
    lines = []
    for index, recipe in enumerate(lineage):
        if others := recipe.get("averaged_with"):
            steps = ", ".join(str(other["steps_done"]) for other in others)
            run = len(lineage) - index
            lines += ["", f"Before its use, the result of run {run} was averaged with earlier results ({steps} steps)."]
    return lines


def _run_row(number: int, recipe: dict[str, Any]) -> str:
    start = f"run {number - 1} ({recipe['start']['weights']})" if "start" in recipe else "random"
    data, stage = recipe["data"], recipe["stage"]
    loss = stage.get("pixel_loss", "l1")
    return (
        f"| {number}: {recipe['weights']} | {start} | {recipe['steps_done']} | {recipe['seconds'] / 60:.0f} "
        f"| {data['lr_patch']}x{data['lr_patch']} LR | {data['batch_size']} | {stage['lr']:g} | {loss} |"
    )


if __name__ == "__main__":
    main()
