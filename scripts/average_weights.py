"""The mean of several weights files of one architecture, for the end points of successive runs.

    python scripts/average_weights.py OUT FILE FILE ...

The ends of runs that each raised and lowered the learning rate lie around a better point than any of them
(stochastic weight averaging, Izmailov et al. 2018, arXiv:1803.05407). OUT's header is that of the last file, with the
recipes of the others under ``averaged_with``.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import torch

from sr_upscale.checkpoint import load_generator, save_generator


def main() -> None:
    """Reads, averages, writes."""
    out, *paths = (Path(name) for name in sys.argv[1:])
    loaded = [load_generator(path) for path in paths]
    configs = {model.config for model, _info in loaded}
    if len(configs) != 1:
        sys.exit(f"the files are of {len(configs)} architectures; expected one")
    model, info = loaded[-1]
    states = [each.state_dict() for each, _info in loaded]
    mean = {key: torch.stack([state[key] for state in states]).mean(dim=0) for key in states[0]}
    model.load_state_dict(mean)
    others = [{**other.recipe, "weights": other.name} for _model, other in loaded[:-1]]
    recipe = {**info.recipe, "averaged_with": others}
    save_generator(out, model, dataclasses.replace(info, recipe=recipe, scores={}))


if __name__ == "__main__":
    main()
