"""Makes collage.jpg (1600 × 1200): the four sample photos side by side, on a plain ground.

Each is sized so that its subject fits windows of 224 px. Run it in this folder: python make_collage.py
"""

from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
GROUND = (92, 96, 102)
PLACES = {  # photo: (left, top, width, height)
    "chelsea.png": (0, 0, 900, 599),
    "coffee.png": (980, 120, 540, 360),
    "camera.png": (100, 650, 500, 500),
    "rocket.jpg": (740, 640, 780, 520),
}


def collage() -> Image.Image:
    """The composed picture, RGB."""
    picture = Image.new("RGB", (1600, 1200), GROUND)
    for name, (left, top, width, height) in PLACES.items():
        with Image.open(HERE / name) as photo:
            sized = photo.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
            picture.paste(sized, (left, top))
    return picture


if __name__ == "__main__":
    collage().save(HERE / "collage.jpg", quality=90)
