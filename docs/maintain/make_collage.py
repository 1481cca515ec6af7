"""Makes sample_images/collage.jpg (1600 × 1200): the four sample photos side by side, on a plain ground.

    python docs/maintain/make_collage.py

Each is sized so that its subject fits windows of 224 px.
"""

from pathlib import Path

from PIL import Image

SAMPLES = Path(__file__).parents[2] / "sample_images"
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
        with Image.open(SAMPLES / name) as photo:
            sized = photo.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
            picture.paste(sized, (left, top))
    return picture


if __name__ == "__main__":
    collage().save(SAMPLES / "collage.jpg", quality=90)
