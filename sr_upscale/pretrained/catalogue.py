"""Well-known open weights that others made, by name.

``catalogue.tsv`` says of each what it is, under which licence, where it lies, and which bytes exactly it is. Addresses,
sizes, hashes and tags are facts of the Open Model Database (github.com/OpenModelDB/open-model-database, commit
782aac08). Every licence here permits any use, some of them with attribution. None is for non-commercial use alone.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from sr_upscale.storage.remote import RemoteFile


@dataclass(frozen=True, kw_only=True)
class RemoteWeights:
    """A row of the table.

    Attributes:
        name: What users type after ``-n``; see `registry.squashed` for what else finds it.
        architecture: What kind of network.
        scale: Its factor; 1 cleans without enlarging.
        license: SPDX identifier.
        purpose: What it is for, in a few words.
        file: Where it comes from.
        tags: What else it is known for, in single words.
    """

    name: str
    architecture: str
    scale: int
    license: str
    purpose: str
    file: RemoteFile
    tags: tuple[str, ...] = ()

    @property
    def filename(self) -> str:
        """Returns the file's name in the cache."""
        return f"{self.name}{'.safetensors' if self.file.name.endswith('.safetensors') else '.pth'}"


def _read(table: Path) -> tuple[RemoteWeights, ...]:
    with table.open(encoding="utf-8", newline="") as file:
        return tuple(
            RemoteWeights(
                name=row["name"],
                architecture=row["architecture"],
                scale=int(row["scale"]),
                license=row["licence"],
                purpose=row["purpose"],
                file=RemoteFile(url=row["url"], size=int(row["bytes"]), sha256=row["sha256"]),
                tags=tuple(row["tags"].split(",")),
            )
            for row in csv.DictReader(file, delimiter="\t")
        )


CATALOGUE = _read(Path(__file__).with_name("catalogue.tsv"))

ELSEWHERE = {
    "ultrasharp": "it is not openly licensed; use 4x-nomoswebphoto-esrgan or 4x-nomos8ksc, or give its file",
    "remacri": "it is not openly licensed; use 4x-nomos8ksc or 4x-lsdirplus, or give its file",
    "gfpgan": "faces are not repaired one by one here; photo, or 4x-nomos8ksc, takes the whole picture",
    "codeformer": "it is not openly licensed, and faces are not repaired here; use photo",
    "digitalart": "use anime, or 4x-hfa2k or realesrgan-x4plus-anime-6b of others",
    "highfidelity": "use psnr, or photo with --fidelity 1",
    "waifu2x": "use anime, or 2x-modernspanimationv1 or realesrgan-x4plus-anime-6b of others",
    "denoise": "use --before 1x-denoise-realplksr-otf, or photo, which cleans noise",
}
"""Names that people know from other programs, squashed, and what to use here in their place."""
