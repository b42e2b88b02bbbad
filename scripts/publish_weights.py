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
import read_letters
from PIL import Image
from scores import SETS, jpeg40, noise8, score, table, vgg

from sr_upscale.data.patches import reduced
from sr_upscale.functional.resize import resize_pixels
from sr_upscale.pretrained.registry import TABLE, catalogue_entry, resolve_weights
from sr_upscale.pretrained.weights_file import WeightsInfo, is_ours, load_generator, read_info, save_generator
from sr_upscale.upscaler import Upscaler

SAMPLES = (("chelsea", 70, 110), ("astronaut", 40, 130), ("coffee", 130, 260), ("rocket", 200, 260))
"""Name in skimage.data, and the top and left of the crop."""
CROP = 192
PAGES = 16
"""Pages of text that weights for text are measured on."""


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
    parser.add_argument("--packages", type=Path, help="fonts of `make_pictures.py`, to read pages of weights for text")
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
    if for_text(info):
        scores["letters"], text_sheet = letters(weights, model.config.scale, arguments)
        sys.stdout.write(f"{read_letters.table(scores['letters'])}\n")
    if arguments.out is None:
        return
    recipe = with_ancestors(dict(info.recipe))
    rounded = json.loads(json.dumps(scores), parse_float=lambda text: round(float(text), 4))
    info = dataclasses.replace(info, scores=rounded, license=arguments.license, data=arguments.data, recipe=recipe)
    save_generator(arguments.out / f"{info.name}.safetensors", model, info, half=arguments.half)
    (text_sheet if for_text(info) else sample_sheet(weights, info)).save(
        arguments.out / f"{info.name}.jpg", quality=90, subsampling=0
    )
    figures = ""
    if arguments.inputs:
        hard, figures = looks_sheet(source, model.config.scale, arguments)
        hard.save(arguments.out / f"{info.name}-looks.jpg", quality=85)
    stored = read_info(arguments.out / f"{info.name}.safetensors")  # scores in the header's order
    (arguments.out / f"{info.name}.md").write_text(card(stored, figures), encoding="utf-8")


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


def for_text(info: WeightsInfo) -> bool:
    """Says whether weights were taught on rendered pictures alone."""
    return info.recipe["data"].get("degradation") == "rendered"


def letters(
    weights: dict[str, Path], scale: int, arguments: argparse.Namespace
) -> tuple[read_letters.Rates, Image.Image]:
    """Character error rates of bicubic, the weights, their twin and the rivals, and a sheet of the first pages."""
    reader = read_letters.Reader("eng")
    chosen = read_letters.pages(arguments.packages, reader, PAGES)
    found = dict(sorted(looks.ways([str(path) for path in weights.values()], arguments.rival, scale).items()))
    return read_letters.error_rates(chosen, found, reader), read_letters.sheet(chosen[:3], found, scale)


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
        lr = reduced(hr, scale)
        if _is_real(info):
            lr = (jpeg40, noise8)[number % 2](lr, number)
        made = (resize_pixels(lr, hr.shape[:2]), *(Upscaler(path)(lr) for path in weights.values()))
        columns = (lr.repeat(scale, 0).repeat(scale, 1), *made, hr)
        rows.append(np.concatenate([each[top : top + CROP, left : left + CROP] for each in columns], axis=1))
    return Image.fromarray(np.concatenate(rows, axis=0))


# --- the card ---------------------------------------------------------------------------------------


def card(info: WeightsInfo, figures: str = "") -> str:
    """Markdown for people; every figure comes out of the header, or the tables of `looks_sheet`."""
    against = twin(info.name)
    shown = ", ".join(["LR", "bicubic", *([against] if against else []), info.name, "HR"])
    spoiled = ", after JPEG 40 (rows 1, 3) or noise of 8 levels (2, 4)" if _is_real(info) else ""
    samples = f"Photographs in the public domain that come with scikit-image and\nwere not trained on{spoiled}"
    if for_text(info):
        shown, samples = (
            ", ".join(sorted(info.scores["letters"])),
            f"Pages in fonts that training never saw: {PAGES_ARE}",
        )
    lines = [
        f"# {info.name}\n\n{info.description}.\n\n![{shown}]({info.name}.jpg)\n",
        f"From left to right: {shown}. {samples}.\n",
        f"* Licence of the weights: {info.license}",
        *_notices(info),
        f"* Trained on: {info.data}",
        f"* Architecture: {json.dumps(dict(info.config))}",
        *_made(info),
        f"\n## Scores\n\n{PROTOCOL}",
    ]
    lines += [f"\n### {TITLES[name]}\n\n{table(info.scores[name])}" for name in sets_for(info)]
    if for_text(info):
        lines.append(f"\n### Letters\n\n{LETTERS}\n\n{read_letters.table(info.scores['letters'])}")
    if validation := info.scores.get("validation"):
        decibels = validation.get("psnr", validation.get("psnr_y"))
        lines.append(f"\nValidation on {validation['pictures']} held-out training pictures: {decibels:.3f} dB.")
    if figures:
        lines.append(f"\n## Looks\n\n![hard crops]({info.name}-looks.jpg)\n\n{LOOKS}\n\n{figures.strip()}")
    return "\n".join([*lines, "\n## Limits\n", *_limits(info), ""])


def _made(info: WeightsInfo) -> list[str]:
    """When and how the weights were made: a row for each stage of each run, or a sentence where nothing was trained."""
    if is_derived(info):
        return [
            f"* Made: {info.date}, by `scripts/average_weights.py`: other weights in another form; nothing was trained"
        ]
    lines = [
        f"* Made: {info.date}, by `sr-upscale train`, in these runs (docs/training.md has the settings):\n",
        "| run | started from | steps | minutes | settings |\n|---|---|---|---|---|",
    ]
    for number, recipe in enumerate(reversed(_lineage(info)), start=1):
        start = recipe["start"]["weights"] if "start" in recipe else recipe.get("init") or "random"
        stages = recipe.get("stages") or {"psnr": recipe["stage"]}  # before there were stages there was one
        for done in recipe.get("stages_done") or [{**recipe, "stage": "psnr", "steps": recipe["steps_done"]}]:
            cells = f"{recipe['weights']}, {done['stage']} | {start} | {done['steps']} | {done['seconds'] / 60:.0f}"
            lines.append(f"| {number}: {cells} | {_settings(recipe, stages[done['stage']])} |")
            start = "the stage before"
    return lines


def _settings(recipe: dict[str, Any], stage: dict[str, Any]) -> str:
    """What a stage learned from: its batch, its optimiser, every weight and share that is not 0, its teacher."""
    patch, batch = (stage.get(key) or recipe["data"][key] for key in ("lr_patch", "batch_size"))
    parts = [f"{batch} patches of {patch}x{patch} LR", f"{stage.get('optimizer', 'adam')} at {stage['lr']:g}"]
    parts += [f"{key} {stage[key]}" for key, weight in WEIGHT_OF.items() if key in stage and stage.get(weight)]
    parts += [
        f"{key} {value:g}"
        for section in (recipe["data"], stage)
        for key, value in section.items()
        if value and (key.endswith(("_weight", "_share")) or key in ("sharpen_teacher", "soften_hr"))
    ]
    teacher = recipe.get("teacher")
    if name := teacher["model"] if isinstance(teacher, dict) else teacher:
        parts.append(f"teacher {name}")
    if others := recipe.get("averaged_with"):
        parts.append(f"averaged with {len(others)} earlier results")
    return ", ".join(parts)


WEIGHT_OF = {"pixel_loss": "pixel_weight", "discriminator": "gan_weight"}


def is_derived(info: WeightsInfo) -> bool:
    """Says whether weights are those of others in another form."""
    return info.recipe.get("stages_done") == []


PROTOCOL = """\
8-bit output from the MATLAB LR files of SelfExSR's repository, border of one scale left out, gray pictures read
as RGB; PSNR and SSIM on Y. Whole pictures in fp32; and PSNR of what `sr-upscale` does by default on the machine
that measured. VGG19 distance: mean difference of conv3_4 before activation, each layer rescaled to a mean
response of 1. Lattice: energy at the period of the tail in flat parts, mesh: at twice that period; compare them
with those of HR. One picture of Set14 (ppt3, a drawn slide) has parts of one colour, where one level is much.
Tint: largest mean difference of a channel from HR, of 255. But for PSNR and SSIM, lower is better."""
LOOKS = """\
Hard crops (`scripts/looks.py`), each enlarged by every way. Lattice at one and at two LR pixels, and the peak of
the spectrum at the diagonal of LR Nyquist, on a smooth place. Distances are to the answers of the last way, on
the LR of Set14 or of pictures held out of the training data, as the table says, after blur 1.2, noise 3 and JPEG
60 (soft60) and after JPEG 40; VGG19 conv3_4 as above."""
PAGES_ARE = ", ".join(read_letters.DAMAGES)
LETTERS = f"""\
Character error rate of tesseract on {PAGES} pages of English after enlarging (`scripts/read_letters.py`), in families
of fonts that training never saw, capitals of 5 to 7 pixels in LR; HR is read without an error. Lower is better."""
TITLES = {
    "set5": "Set5",
    "set14": "Set14",
    "set14_jpeg40": "Set14 after JPEG of quality 40",
    "set14_noise8": "Set14 with Gaussian noise of 8 levels",
}


def _limits(info: WeightsInfo) -> list[str]:
    """What people should know before they trust the weights."""
    if for_text(info):
        lines = [
            "* Taught on rendered text, screens, charts and drawings: photographs come out softer than by `photo`."
        ]
    elif _is_real(info):
        lines = ["* Taught to clean: fine grain, film grain and faint texture may be taken for noise and smoothed."]
    else:
        lines = ["* Taught on clean pictures made smaller by bicubic resampling: JPEG blocks and noise are enlarged."]
    taught = _is_real(info) and bool(_notices(info))
    if for_text(info):
        lines.append("* A letter that LR does not hold is guessed: check figures and names against the original.")
    elif taught or any(stage.get("gan_weight") for stage in info.recipe.get("stages", {}).values()):
        lines.append(
            "* Draws edges and texture that look likely. They are no evidence of what was there: no forensics."
        )
    else:
        lines.append("* Never invents texture; detail that the input does not hold stays smooth.")
    flat = info.scores["set14"]
    for key, what in (("lattice", "its factor"), ("mesh", "twice its factor")):
        if flat[info.name].get(key, 0) > 2 * flat["HR"].get(key, 0):
            lines.append(f"* Leaves a faint grid, of the period of {what}, on flat areas (see {key} above).")
    if for_text(info):
        return lines
    subjects = "faces" if taught else "faces, text or line art"
    return [*lines, f"* Nobody chose training pictures for {subjects}; expect less there."]


def _lineage(info: WeightsInfo) -> list[dict[str, Any]]:
    """Recipes, the newest first."""
    recipe = {**info.recipe, "weights": info.name}
    found = [recipe]
    while "start" in recipe:
        recipe = recipe["start"]
        found.append(recipe)
    return found


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
    if lines and any(name.startswith("realesr") for name in teachers) and "issue 677" not in lines[0]:
        lines[-1] += (
            ". Whether that licence covers the weights was asked in issue 677 of its repository and not answered"
        )
    return lines


if __name__ == "__main__":
    main()
