"""Makes a contact sheet of the default picture of twelve photos of all sizes, 200 to 6,000 px.

    python docs/maintain/make_contact_sheet.py docs/pictures/contact_sheet.jpg

The photos are the samples, parts of them, and both made smaller or larger; each is mapped by the command
itself, as a user would, and stands in the sheet over its size.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

SAMPLES = Path(__file__).parents[2] / "sample_images"
FONT = Path(__file__).parents[2] / "fcnconv" / "data" / "fonts" / "DejaVuSans.ttf"
PHOTOS: list[tuple[str, tuple[int, int, int, int] | None, int]] = [
    # sample, the part of it (all), and the width to bring that to
    ("chelsea.png", (110, 40, 310, 240), 200),
    ("coffee.png", None, 240),
    ("rocket.jpg", (40, 0, 609, 427), 320),
    ("chelsea.png", None, 451),
    ("camera.png", None, 512),
    ("coffee.png", None, 600),
    ("rocket.jpg", None, 640),
    ("rocket.jpg", (250, 0, 450, 427), 200),
    ("collage.jpg", None, 1600),
    ("collage.jpg", (0, 620, 1600, 1180), 1600),
    ("collage.jpg", None, 3200),
    ("chelsea.png", None, 6000),
]
ACROSS, CELL, CAPTION, GAP = 4, (480, 400), 26, 10


def main(out: str) -> None:
    """Writes the sheet to the file `out`."""
    down = -(-len(PHOTOS) // ACROSS)
    width, height = CELL[0] + GAP, CELL[1] + CAPTION + GAP
    sheet = Image.new("RGB", (ACROSS * width + GAP, down * height + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.truetype(str(FONT), 17)
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, box, wide) in enumerate(PHOTOS):
            with Image.open(SAMPLES / name) as sample:
                part = sample.convert("RGB").crop(box or (0, 0, *sample.size))
            size = wide, round(part.height * wide / part.width)
            photo, map = Path(folder, f"{number}.png"), Path(folder, f"{number}.map.png")
            part.resize(size, Image.Resampling.LANCZOS).save(photo)
            subprocess.run(["fcnconv", "heatmap", photo, "-o", map, "--max-side", "1600"], check=True)
            x, y = GAP + number % ACROSS * width, GAP + number // ACROSS * height
            with Image.open(map) as picture:
                shown = ImageOps.contain(picture.convert("RGB"), CELL, Image.Resampling.LANCZOS)
            sheet.paste(shown, (x + (CELL[0] - shown.width) // 2, y + (CELL[1] - shown.height) // 2))
            text = f"{name}, {size[0]} × {size[1]} px"
            draw.text((x + CELL[0] // 2, y + CELL[1] + 4), text, fill="black", font=font, anchor="ma")
    sheet.save(out, quality=88)


if __name__ == "__main__":
    main(sys.argv[1])
