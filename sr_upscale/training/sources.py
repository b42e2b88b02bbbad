"""What a run learns from: pictures, a teacher, VGG19."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from sr_upscale.data.decoded import load_pairs
from sr_upscale.data.patches import Pair, centre_of, find_pictures, split_validation
from sr_upscale.errors import UsageError
from sr_upscale.models.features import DISTANCE_LAYER, LAYERS, VGG19Features, layers_held, read_vgg19
from sr_upscale.pretrained.load import traits_of
from sr_upscale.training.config import Recipe, looks_at_features
from sr_upscale.training.run import Pictures, Setup
from sr_upscale.training.teacher import TrainingCrops, answered
from sr_upscale.training.validation import degraded

VALIDATION_SIDE = 512
"""HR pixels of a side of validation pictures at most: only their middle is used. Whole camera pictures would take
longer than the training."""


def vgg19_for(
    recipe: Recipe, file: Path | None, device: torch.device, on_warning: Callable[[str], None]
) -> VGG19Features | None:
    """Loads VGG19 with the layers that losses and validation look at, as far as the weights hold them.

    Args:
        recipe: Says what its stages look at.
        file: Weights of VGG19; None takes torchvision's.
        device: Where to put it.
        on_warning: Called with a sentence where the weights lack some of a stage's layers.

    Returns:
        VGG19; None where no stage wants it and no file is given.

    Raises:
        UsageError: The weights lack all of a stage's layers.
        ModelError, NetworkError: VGG19 cannot be read or had.
    """
    if not recipe.needs_features and file is None:
        return None
    state = read_vgg19(file)
    held = layers_held(state)
    wanted = {DISTANCE_LAYER}
    for name, stage in recipe.stages.items():
        if not looks_at_features(stage):
            continue
        layers = sorted(stage.perceptual_layers, key=list(LAYERS).index)
        missing = [layer for layer in layers if layer not in held]
        if len(missing) == len(layers):
            raise UsageError(
                f"{file}: holds VGG19 up to {held[-1]}, and stage {name} looks at {', '.join(layers)}; "
                f"give a whole VGG19, or layers with --set stages.{name}.perceptual_layers.{held[-1]}=1"
            )
        if missing:
            used = ", ".join(sorted(set(layers) - set(missing), key=layers.index))
            on_warning(f"VGG19 weights end at {held[-1]}: the perceptual loss uses {used} without {', '.join(missing)}")
        wanted |= set(layers)
    features = VGG19Features(state, [layer for layer in LAYERS if layer in wanted and layer in held])
    return features.to(device=device, memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


def load_pictures(recipe: Recipe, teacher: Path | None, setup: Setup) -> Pictures:
    """Finds and decodes the pictures of a run, and lets the teacher answer.

    Args:
        recipe, teacher: What is learnt, and from whom.
        setup: Its cache keeps the teacher's answers; without one they are in the run's folder.

    Raises:
        UsageError: Rendered pictures are given without a share of them, or a share without pictures.
        TrainingError: A folder holds no pictures, or too many cannot be used.
        ModelError, OutputError: See `teacher.TrainingCrops.ask`.
    """
    if bool(recipe.data.rendered_share) != bool(setup.rendered):
        share = recipe.data.rendered_share
        raise UsageError(
            f"--rendered names {len(setup.rendered)} folders, and data.rendered_share is {share}; expected both"
        )
    folders, held_out = find_data(recipe, setup.data, setup.validation, setup.on_warning)
    decode = partial(load_pairs, cache=setup.cache, on_warning=setup.on_warning)
    needed = recipe.model.scale * max(recipe.patch_of(stage) for stage in recipe.stages.values())
    own = partial(decode, scale=recipe.model.scale, min_side=needed)
    paths = [path for folder in folders for path in folder]
    training: list[Pair] | TrainingCrops
    if teacher is None:
        training = own(paths)
    else:
        held_out = answered(held_out, teacher, recipe.teacher, setup.device)
        scale = traits_of(teacher).scale
        large = [decode(each, scale=scale, min_side=scale * recipe.teacher.crop) for each in folders if each]
        training = TrainingCrops(recipe, teacher, setup.cache or setup.out, large)
        training.ask(device=setup.device, on_progress=setup.on_asking)
    return Pictures(
        training=training,
        rendered=own(find_pictures(setup.rendered)) if setup.rendered else [],
        photographs=own(paths) if recipe.data.clean_share else [],
        held_out=held_out,
    )


def find_data(
    recipe: Recipe, data: Sequence[Path], validation: Path | None, on_warning: Callable[[str], None]
) -> tuple[list[list[Path]], list[Pair]]:
    """Finds the training pictures of each folder, and loads the pictures to validate on.

    Args:
        recipe: Says how many to hold out, the scale, and how LR is made.
        data: Folders of training pictures.
        validation: Folder of pictures to validate on. Without it some of `data` are held out.
        on_warning: Called with a sentence about what was left out, or where there is no validation.

    Returns:
        Paths of the training pictures of each folder, and pairs to validate on. Of those only the middle is kept, at
        most `VALIDATION_SIDE` HR pixels a side.

    Raises:
        TrainingError: A folder holds no pictures, or too many cannot be used.
    """
    folders, held_out_paths = find_paths(recipe, data, validation)
    scale = recipe.model.scale
    if not held_out_paths:
        on_warning("too few pictures to hold any out: there is no validation (give some with --val)")
        return folders, []
    held_out = load_pairs(held_out_paths, scale=scale, min_side=11 + 2 * scale, on_warning=on_warning)
    held_out = [centre_of(pair, VALIDATION_SIDE) for pair in held_out]
    return folders, degraded(held_out, recipe.family) if recipe.family is not None else held_out


def find_paths(recipe: Recipe, data: Sequence[Path], validation: Path | None) -> tuple[list[list[Path]], list[Path]]:
    """Finds pictures, and opens none.

    Args:
        recipe: Says how many to hold out.
        data: Folders of training pictures.
        validation: Folder of pictures to validate on. Without it some of `data` are held out.

    Returns:
        Paths of the training pictures of each folder, and of those to validate on.

    Raises:
        TrainingError: A folder holds no pictures.
    """
    held_out_paths = find_pictures([validation]) if validation is not None else []
    seen = set(held_out_paths)
    folders = []
    for folder in data:
        paths = [path for path in find_pictures([folder]) if path not in seen]
        seen |= set(paths)
        if validation is None:
            paths, some = split_validation(paths, recipe.data.validation_count)
            held_out_paths += some
        folders.append(paths)
    return folders, held_out_paths
