"""A finished run -> `weights/NAME.safetensors`, its card `weights/NAME.md` and sample sheet `weights/NAME.jpg`.

    python scripts/publish_weights.py runs/psnr-x4 --benchmarks FOLDER --license MIT --data "..." --out weights

The scores are measured here (`scripts/scores.py`). Sample pictures are photographs in the public domain that come with
scikit-image; no weights were taught on them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import looks
import numpy as np
from PIL import Image
from scores import SETS, jpeg40, noise8, score, table, vgg

from sr_upscale.data.bicubic import downscale_matlab
from sr_upscale.functional.color import to_pixels, to_tensor
from sr_upscale.functional.resize import resize_pixels
from sr_upscale.pretrained.registry import TABLE, catalogue_entry, resolve_weights
from sr_upscale.pretrained.weights_file import WeightsInfo, is_ours, load_generator, read_info, save_generator
from sr_upscale.upscaler import Upscaler

SAMPLES = (("chelsea", 70, 110), ("astronaut", 40, 130), ("coffee", 130, 260), ("rocket", 200, 260))
"""Name in skimage.data, and the top and left of the crop."""
CROP = 192


def main() -> None:
    """Scores, stamps, writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a folder with one .safetensors, or the file")
    parser.add_argument("--benchmarks", type=Path, required=True)
    parser.add_argument("--vgg-weights", type=Path)
    parser.add_argument("--license", default="MIT")
    parser.add_argument("--data", default="")
    parser.add_argument("--inputs", type=Path, help="pictures for the sheet of `scripts/looks.py`")
    parser.add_argument("--rival", action="append", default=[], help="a name or a file, for that sheet; repeatable")
    parser.add_argument("--held-out", type=Path, help="training pictures; those held out serve in place of Set14 there")
    parser.add_argument("--half", action="store_true", help="numbers of 16 bits on disk")
    parser.add_argument("--out", type=Path, help="without it the scores are only printed")
    arguments = parser.parse_args()
    source = arguments.run if arguments.run.is_file() else only_weights(arguments.run)
    model, info = load_generator(source)
    against = twin(info.name)
    weights = {**({against: resolve_weights(against)} if against else {}), info.name: source}
    scores: dict[str, Any] = dict(info.scores)
    for name in sets_for(info):
        scores[name] = score(weights, arguments.benchmarks, name, features=vgg(arguments.vgg_weights))
        sys.stdout.write(f"{name} x{model.config.scale}\n{table(scores[name])}\n")
    if arguments.out is None:
        return
    recipe = with_ancestors(dict(info.recipe))
    rounded = json.loads(json.dumps(scores), parse_float=lambda text: round(float(text), 4))
    info = dataclasses.replace(info, scores=rounded, license=arguments.license, data=arguments.data, recipe=recipe)
    save_generator(arguments.out / f"{info.name}.safetensors", model, info, half=arguments.half)
    sample_sheet(weights, info).save(arguments.out / f"{info.name}.jpg", quality=90, subsampling=0)
    hard = looks_sheet(source, model.config.scale, arguments) if arguments.inputs else None
    if hard is not None:
        hard[0].save(arguments.out / f"{info.name}-looks.jpg", quality=85)
    log_file = source.parent / "train.jsonl"  # an average of runs has none
    log = [json.loads(line) for line in log_file.read_text().splitlines()] if log_file.exists() else []
    stored = read_info(arguments.out / f"{info.name}.safetensors")  # scores in the header's order
    text = card(stored, log, figures=hard[1] if hard is not None else "")
    (arguments.out / f"{info.name}.md").write_text(text, encoding="utf-8")


def only_weights(run: Path) -> Path:
    """``runs/x/NAME.safetensors``, not the ends of earlier stages nor the best so far."""
    found = sorted(run.glob("*.safetensors"), key=lambda path: len(path.name))
    if not found:
        sys.exit(f"{run}: no .safetensors in it")
    return found[0]


def twin(name: str) -> str | None:
    """The faithful weights of the same factor, for comparison; none for themselves."""
    faithful = f"psnr-{name.rsplit('-', 1)[-1]}"
    return faithful if name != faithful and faithful in {entry.name for entry in TABLE} else None


def sets_for(info: WeightsInfo) -> list[str]:
    """Clean sets for all; spoiled ones for weights that were taught on spoiled pictures."""
    return list(SETS) if _is_real(info) else ["set5", "set14"]


def _is_real(info: WeightsInfo) -> bool:
    return info.recipe["data"].get("degradation") == "real"


def with_ancestors(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe with, under ``start``, the recipe of the weights that it started from, and so on."""
    init = recipe["init"] if "start" not in recipe else ""  # else it was published before, with all of this
    path = resolve_weights(init) if init and catalogue_entry(init) is None else None
    if path is not None and is_ours(path):
        start = read_info(path)
        recipe["start"] = with_ancestors({**start.recipe, "weights": start.name})
    return _names_only(recipe)


def _names_only(recipe: dict[str, Any]) -> dict[str, Any]:
    """Weights by name, not by their place on this machine; also in the recipes it started from or was averaged with."""
    names: dict[str, Any] = {"init": Path(recipe.get("init", "")).stem}
    if isinstance(recipe.get("teacher"), dict):
        names["teacher"] = {**recipe["teacher"], "model": Path(recipe["teacher"]["model"]).stem}
    if "start" in recipe:
        names["start"] = _names_only(dict(recipe["start"]))
    if "averaged_with" in recipe:
        names["averaged_with"] = [_names_only(dict(other)) for other in recipe["averaged_with"]]
    return {**recipe, **names}


def looks_sheet(source: Path, scale: int, arguments: argparse.Namespace) -> tuple[Image.Image, str]:
    """The sheet of hard crops beside the rivals, and its figures."""
    ways = looks.ways([str(source)], arguments.rival, scale)
    rows = looks.rows(arguments.inputs, ways, scale)
    figures = looks.lattice_table(rows, scale)
    if arguments.rival and (pictures := looks.damaged(arguments, scale)):
        figures += "\n\n" + looks.distances(ways, pictures, arguments.vgg_weights, looks.title_of(arguments))
    return looks.sheet(rows, list(ways), scale), figures


# --- pictures ---------------------------------------------------------------------------------------


def sample_sheet(weights: dict[str, Path], info: WeightsInfo) -> Image.Image:
    """Rows of crops: LR, bicubic, the weights, HR. LR of real-world weights comes through JPEG 40 or noise of 8."""
    from skimage import data

    scale = int(info.config["scale"])
    rows = []
    for number, (name, top, left) in enumerate(SAMPLES):
        hr = getattr(data, name)()
        height, width = (side - side % scale for side in hr.shape[:2])
        hr = np.ascontiguousarray(hr[:height, :width, :3])
        lr = to_pixels(downscale_matlab(to_tensor(hr), scale), np.dtype(np.uint8))
        if _is_real(info):
            lr = (jpeg40, noise8)[number % 2](lr, number)
        bicubic = resize_pixels(lr, hr.shape[:2])
        columns = [
            lr.repeat(scale, 0).repeat(scale, 1),
            bicubic,
            *(Upscaler(path)(lr) for path in weights.values()),
            hr,
        ]
        rows.append(np.concatenate([each[top : top + CROP, left : left + CROP] for each in columns], axis=1))
    return Image.fromarray(np.concatenate(rows, axis=0))


# --- the card ---------------------------------------------------------------------------------------


def card(info: WeightsInfo, log: list[dict[str, Any]], *, figures: str = "") -> str:
    """Markdown for people; every figure comes out of the header, the log, or the tables of `looks_sheet`."""
    against = twin(info.name)
    shown = ["LR", "bicubic", *([against] if against else []), info.name, "HR"]
    lines = [
        f"# {info.name}",
        "",
        f"{info.description}.",
        "",
        f"![{', '.join(shown)}]({info.name}.jpg)",
        "",
        f"From left to right: {', '.join(shown)}. Photographs in the public domain that come with scikit-image and",
        f"were not trained on{', after JPEG 40 (rows 1, 3) or noise of 8 levels (2, 4)' if _is_real(info) else ''}.",
        "",
        f"* Licence of the weights: {info.license}",
        *_notices(info),
        f"* Trained on: {info.data}",
        *_made(info, log),
        *_averages(info),
        *_teachers(info),
        "",
        f"* Architecture: {json.dumps(dict(info.config))}",
        "",
        "## Scores",
        "",
        *PROTOCOL,
    ]
    for name in sets_for(info):
        lines += ["", f"### {TITLES[name]}", "", table(info.scores[name])]
    if "validation" in info.scores:
        validation = info.scores["validation"]
        score_words = validation.get("psnr", validation.get("psnr_y"))
        lines += ["", f"Validation on {validation['pictures']} held-out training pictures: {score_words:.3f} dB."]
    if figures:
        lines += ["", "## Looks", "", f"![hard crops]({info.name}-looks.jpg)", "", *LOOKS, "", figures.strip()]
    lines += [*_curve(log), "", "## Limits", "", *_limits(info), ""]
    return "\n".join(lines)


def _made(info: WeightsInfo, log: list[dict[str, Any]]) -> list[str]:
    """When and how the weights were made: a table of runs, or one sentence where nothing was trained."""
    if is_derived(info):
        return [
            f"* Made: {info.date}, by `scripts/average_weights.py`: other weights in gated blocks; nothing was trained"
        ]
    return [
        f"* Made: {info.date}, by `sr-upscale train` on {_machine(log)}, in these runs:",
        "",
        "| run | started from | steps | minutes | patch | batch | highest lr | optimiser | losses |",
        "|---|---|---|---|---|---|---|---|---|",
        *_run_rows(info),
    ]


def is_derived(info: WeightsInfo) -> bool:
    """Says whether weights are those of others in another form."""
    return info.recipe.get("stages_done") == []


PROTOCOL = (
    "8-bit output from the MATLAB LR files of SelfExSR's repository, border of one scale left out, gray pictures read",
    "as RGB; PSNR and SSIM on Y. Whole pictures in fp32; and PSNR of what `sr-upscale` does by default on the machine",
    "that measured. VGG19 distance: mean difference of conv3_4 before activation, each layer rescaled to a mean",
    "response of 1. Lattice: energy at the period of the tail in flat parts, mesh: at twice that period; compare them",
    "with those of HR. One picture of Set14 (ppt3, a drawn slide) has parts of one colour, where one level is much.",
    "Tint: largest mean difference of a channel from HR, of 255. But for PSNR and SSIM, lower is better.",
)

LOOKS = (
    "Hard crops (`scripts/looks.py`), each enlarged by every way. Lattice at one and at two LR pixels, and the peak of",
    "the spectrum at the diagonal of LR Nyquist, on a smooth place. Distances are to the answers of the last way, on",
    "the LR of Set14 or of pictures held out of the training data, as the table says, after blur 1.2, noise 3 and JPEG",
    "60 (soft60) and after JPEG 40; VGG19 conv3_4 as above.",
)

TITLES = {
    "set5": "Set5",
    "set14": "Set14",
    "set14_jpeg40": "Set14 after JPEG of quality 40",
    "set14_noise8": "Set14 with Gaussian noise of 8 levels",
}


def _limits(info: WeightsInfo) -> list[str]:
    """What people should know before they trust the weights."""
    if _is_real(info):
        lines = ["* Taught to clean: fine grain, film grain and faint texture may be taken for noise and smoothed."]
    else:
        lines = ["* Taught on clean pictures made smaller by bicubic resampling: JPEG blocks and noise are enlarged."]
    taught = _is_real(info) and bool(_notices(info))
    if taught or any(stage.get("gan_weight") for stage in info.recipe.get("stages", {}).values()):
        lines.append(
            "* Draws edges and texture that look likely. They are no evidence of what was there: no forensics."
        )
    else:
        lines.append("* Never invents texture; detail that the input does not hold stays smooth.")
    flat = info.scores["set14"]
    for key, what in (("lattice", "its factor"), ("mesh", "twice its factor")):
        if flat[info.name].get(key, 0) > 2 * flat["HR"].get(key, 0):
            lines.append(f"* Leaves a faint grid, of the period of {what}, on flat areas (see {key} above).")
    subjects = "faces" if taught else "faces, text or line art"
    return [*lines, f"* Nobody chose training pictures for {subjects}; expect less there."]


def _machine(log: list[dict[str, Any]]) -> str:
    """Device and number type of the last run, as its log's first line has them."""
    first = next((entry for entry in log if "device" in entry), {"device": "cpu", "dtype": "torch.bfloat16"})
    where = "two CPU cores" if first["device"] == "cpu" else f"a GPU ({first['device']})"
    kind = {"torch.bfloat16": " with bf16 autocast", "torch.float16": " with fp16 autocast"}.get(first["dtype"], "")
    return f"{where}{kind}"


def _curve(log: list[dict[str, Any]]) -> list[str]:
    """Validations of the run, at most ten of them."""
    points = [entry for entry in log if "fraction" in entry and (entry.get("scores") or entry.get("validation_psnr"))]
    if not points:
        return []
    lines = [
        "",
        "The last run:",
        "",
        "| stage | step | minutes | loss | PSNR, dB | distance |",
        "|---|---|---|---|---|---|",
    ]
    for entry in points[:: max(1, len(points) // 10)]:
        scores = entry.get("scores") or {"psnr": entry["validation_psnr"]}
        loss = entry["losses"]["loss"] if "losses" in entry else entry["loss"]
        distance = f"{scores['distance']:.3f}" if scores.get("distance") is not None else ""
        lines.append(
            f"| {entry.get('stage', 'psnr')} | {entry['step']} | {entry['elapsed_s'] / 60:.0f} | {loss:.4f} "
            f"| {scores['psnr']:.2f} | {distance} |"
        )
    return lines


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
            run = len(lineage) - index
            words = ", ".join(
                f"{_done(other)[-1]['stage']} stage, {_done(other)[-1]['steps']} steps"
                + (f" towards {taught['model']}" if isinstance(taught := other.get("teacher"), dict) else "")
                + (f": {other['share']:.0%} of the mean" if "share" in other else "")
                for other in others
            )
            lines += ["", f"Before its use, the result of run {run} was averaged with earlier results ({words})."]
    return lines


def _teachers(info: WeightsInfo) -> list[str]:
    """A sentence for each recipe that had a teacher."""
    lineage = _lineage(info)
    lines = []
    for index, recipe in enumerate(lineage):
        teacher = recipe.get("teacher")
        if isinstance(teacher, dict):
            who = (
                f"{teacher['model']}{', as a self-ensemble' if teacher['ensemble'] else ''}" if teacher["model"] else ""
            )
            asked = f" about {teacher['crops']} crops of {teacher['crop']}x{teacher['crop']} LR"
            if recipe["data"].get("rendered_share"):
                shares = recipe["data"]["rendered_share"], recipe["data"]["clean_share"]
                asked += "; {:.0%} of the patches were rendered pictures and {:.0%} clean ones, with HR".format(*shares)
            if teacher.get("clean_hr"):
                asked += "; where LR was only reduced, HR was taught"
        else:  # before any model could teach
            whose = "the weights that it started from" if teacher == recipe.get("init") else teacher
            who, asked = f"the self-ensemble of {whose}" if teacher else "", ""
        if who:
            lines += [
                "",
                f"The teacher of run {len(lineage) - index} was {who}, asked{asked or ' about every picture'}.",
            ]
    return lines


def _notices(info: WeightsInfo) -> list[str]:
    """Names the teachers that are not weights of ours. Who made them, and their licences, stand in NOTICE.md."""
    recipes = [each for recipe in _lineage(info) for each in (recipe, *recipe.get("averaged_with", ()))]
    teachers = {recipe["teacher"]["model"] for recipe in recipes if isinstance(recipe.get("teacher"), dict)}
    lines = []
    if (first := _lineage(info)[-1].get("init")) and (row := catalogue_entry(first)) is not None:
        what, then = "Starts from", "then trained here"
        if is_derived(info):
            what, then = "Answers as", "bit for bit in fp32"
        lines.append(
            f"* {what} {first} ({row.license}; notice in [NOTICE.md](NOTICE.md)), {then}. Whether that "
            "licence covers the weights was asked in issue 677 of its repository and not answered"
        )
    for name in sorted(teachers - {"", *(entry.name for entry in TABLE)}):
        row = catalogue_entry(name)
        licence = f"{row.license}; " if row is not None else ""
        lines.append(f"* Taught by the answers of {name} ({licence}notice in [NOTICE.md](NOTICE.md))")
    return lines


def _done(recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """What a recipe's stages ran; weights of before there were stages have one."""
    if "stages_done" in recipe:
        return list(recipe["stages_done"])
    return [{"stage": "psnr", "steps": recipe["steps_done"], "seconds": recipe["seconds"]}]


def _run_rows(info: WeightsInfo) -> list[str]:
    rows = []
    for number, recipe in enumerate(reversed(_lineage(info)), start=1):
        start = (
            f"run {number - 1} ({recipe['start']['weights']})" if "start" in recipe else recipe.get("init") or "random"
        )
        stages = recipe.get("stages") or {"psnr": recipe["stage"]}
        for done in _done(recipe):
            stage, data = stages[done["stage"]], recipe["data"]
            patch, batch = (stage.get(key) or data[key] for key in ("lr_patch", "batch_size"))
            rows.append(
                f"| {number}: {recipe['weights']}, {done['stage']} | {start} | {done['steps']} "
                f"| {done['seconds'] / 60:.0f} | {patch}x{patch} LR | {batch} | {stage['lr']:g} "
                f"| {stage.get('optimizer', 'adam')} | {_losses(stage)} |"
            )
            start = "the stage before"
    return rows


def _losses(stage: dict[str, Any]) -> str:
    words = [f"{stage.get('pixel_loss', 'l1')} {stage['pixel_weight']:g}"] if stage["pixel_weight"] else []
    if stage.get("teacher_weight"):
        words.append(f"teacher {stage['teacher_weight']:g}")
    if stage.get("teacher_perceptual_weight"):
        words.append(f"VGG19 to the teacher {stage['teacher_perceptual_weight']:g}")
    if stage.get("teacher_texture_weight"):
        words.append(f"texture to the teacher {stage['teacher_texture_weight']:g}")
    if stage.get("start_share"):
        words.append(f"of the start's answer {stage['start_share']:g}")
    if stage.get("sharpen_teacher"):
        words.append(f"sharpened by {stage['sharpen_teacher']:g}")
    if stage.get("color_weight"):
        words.append(f"colours {stage['color_weight']:g}")
    if stage.get("lattice_weight"):
        words.append(f"lattice {stage['lattice_weight']:g}")
    if stage.get("fft_weight"):
        words.append(f"FFT {stage['fft_weight']:g}")
    if stage.get("perceptual_weight"):
        words.append(f"VGG19 {stage['perceptual_weight']:g}")
    if stage.get("gan_weight"):
        real = ", shown the teacher's answers" if stage.get("gan_real") == "teacher" else ""
        lr = ", beside LR" if stage.get("gan_sees_lr") else ""
        words.append(f"{stage['gan_loss']} {stage['gan_weight']:g} ({stage['discriminator']}{real}{lr})")
    return ", ".join(words)


if __name__ == "__main__":
    main()
