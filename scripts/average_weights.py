"""The mean of several weights files of one architecture, for the end points of successive runs or stages.

    python scripts/average_weights.py OUT FILE[=SHARE] FILE[=SHARE] ...
    python scripts/average_weights.py --name photo-x4 --description "..." OUT realesr-general-x4v3.pth

The ends of runs that each raised and lowered the learning rate lie around a better point than any of them
(stochastic weight averaging, Izmailov et al. 2018, arXiv:1803.05407); between an L1 stage and the GAN stage after it
lies every degree of invention (network interpolation, Wang et al. 2018, arXiv:1812.10515). OUT's header is that of the
last file, with the recipes of the others under ``averaged_with``. Shares are relative; 1 each without them. A compact
network of Real-ESRGAN counts as the gated one that answers alike, bit for bit: so a start is made, which is named.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import sys
from pathlib import Path

import torch

from sr_upscale.pretrained.blend import generator_of
from sr_upscale.pretrained.weights_file import WeightsInfo, save_generator


def main() -> None:
    """Reads, averages, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("files", nargs="+", metavar="FILE[=SHARE]")
    parser.add_argument("--name", default="", help="of the start, where it is made of compact networks")
    parser.add_argument("--description", default="", help="of the start, in a sentence")
    options = parser.parse_args()
    names = options.files
    paths, given = zip(*((name.rpartition("=")[::2] if "=" in name else (name, "1")) for name in names), strict=True)
    shares = torch.tensor([float(share) for share in given]) / sum(float(share) for share in given)
    loaded = [generator_of(Path(path)) for path in paths]
    configs = {model.config for model, _info in loaded}
    if len(configs) != 1:
        sys.exit(f"the files are of {len(configs)} architectures; expected one")
    model, info = loaded[-1]
    states = [each.state_dict() for each, _info in loaded]
    mean = {key: torch.tensordot(shares, torch.stack([state[key] for state in states]), 1) for key in states[0]}
    model.load_state_dict(mean)
    if not info.recipe:
        save_generator(options.out, model, start_info(options, paths), half=True)
        return
    others = [
        {**other.recipe, "weights": other.name, "share": round(share, 4)}
        for (_model, other), share in zip(loaded[:-1], shares.tolist(), strict=False)
    ]
    recipe = {**info.recipe, "averaged_with": others}
    save_generator(options.out, model, dataclasses.replace(info, recipe=recipe, scores={}))


def start_info(options: argparse.Namespace, paths: tuple[str, ...]) -> WeightsInfo:
    """The header of a start: whose weights it is, and that nothing was trained."""
    names = [Path(path).stem for path in paths]
    return WeightsInfo(
        name=options.name,
        description=options.description,
        date=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        recipe={"init": "+".join(names), "data": {"degradation": "real"}, "stages": {}, "stages_done": []},
    )


if __name__ == "__main__":
    main()
