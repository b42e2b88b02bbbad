"""The mean of several weights files of one architecture, for the end points of successive runs or stages.

    python scripts/average_weights.py OUT FILE[=SHARE] FILE[=SHARE] ...

The ends of runs that each raised and lowered the learning rate lie around a better point than any of them
(stochastic weight averaging, Izmailov et al. 2018, arXiv:1803.05407); between an L1 stage and the GAN stage after it
lies every degree of invention (network interpolation, Wang et al. 2018, arXiv:1812.10515). OUT's header is that of the
last file, with the recipes of the others under ``averaged_with``. Shares are relative; 1 each without them.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import torch

from sr_upscale.pretrained.weights_file import load_generator, save_generator


def main() -> None:
    """Reads, averages, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("files", nargs="+", metavar="FILE[=SHARE]")
    options = parser.parse_args()
    names = options.files
    paths, given = zip(*((name.rpartition("=")[::2] if "=" in name else (name, "1")) for name in names), strict=True)
    shares = torch.tensor([float(share) for share in given]) / sum(float(share) for share in given)
    loaded = [load_generator(Path(path)) for path in paths]
    configs = {model.config for model, _info in loaded}
    if len(configs) != 1:
        sys.exit(f"the files are of {len(configs)} architectures; expected one")
    model, info = loaded[-1]
    states = [each.state_dict() for each, _info in loaded]
    mean = {key: torch.tensordot(shares, torch.stack([state[key] for state in states]), 1) for key in states[0]}
    model.load_state_dict(mean)
    others = [
        {**other.recipe, "weights": other.name, "share": round(share, 4)}
        for (_model, other), share in zip(loaded[:-1], shares.tolist(), strict=False)
    ]
    recipe = {**info.recipe, "averaged_with": others}
    save_generator(options.out, model, dataclasses.replace(info, recipe=recipe, scores={}))


if __name__ == "__main__":
    main()
