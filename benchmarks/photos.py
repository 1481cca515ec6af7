"""200 photos of ordinary size in one command: images a second, against a DataLoader script.

    python benchmarks/photos.py

Ours scores every window of the photo at the evaluation size; the script scores the one in the middle.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image
from side_by_side import commands_in_turns, table

HERE = Path(__file__).parent
COUNT = 200

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        samples = [
            path
            for path in sorted((HERE.parent / "sample_images").iterdir())
            if path.suffix in (".png", ".jpg")
        ]
        photos = []
        for i in range(COUNT):
            photo = Image.open(samples[i % len(samples)]).convert("RGB")
            width = 400 + i * 2
            photos.append(str(Path(folder, f"{i:03}.jpg")))
            photo.resize((width, width * photo.height // photo.width)).save(photos[-1], quality=90)
        ours = "fcnconv classify"
        measured = commands_in_turns(
            {
                ours: [sys.executable, "-m", "fcnconv", "classify", *photos],
                "torchvision DataLoader script": [
                    sys.executable,
                    str(HERE / "dataloader_script.py"),
                    *photos,
                ],
            },
            rounds=3,
        )
        table(measured, ours, ("images a second", lambda seconds: f"{COUNT / seconds:.1f}"))
