"""What stands on a picture to read it by: a title, a colour bar, a key of classes. Left out where it would
not fit.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from fcnconv.render.colours import colour_map

_GROUND = (18, 18, 20)
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)

Colour = tuple[int, ...]


def draw_title(image: Image.Image, name: str) -> None:
    """The class's name on a strip at the lower left, above the place of the colour bar."""
    size = _text_size(image)
    font = ImageFont.load_default(size)
    text = shortened(name, font, image.width - 2 * size)
    strip = _strip(round(font.getlength(text)) + size, round(size * 1.7))
    ImageDraw.Draw(strip).text((size // 2, strip.height // 2), text, font=font, fill="white", anchor="lm")
    _lay(image, strip, image.height - strip.height - _scale_size(image)[1])


def draw_scale(image: Image.Image) -> None:
    """A colour bar from 0 to 1 with its ticks, at the lower left."""
    size = _text_size(image)
    width, height = _scale_size(image)
    strip = _strip(width + size, height)
    draw = ImageDraw.Draw(strip)
    bar = Image.fromarray(colour_map()[None]).resize((width, round(size * 0.7)), Image.Resampling.BILINEAR)
    strip.paste(bar, (size // 2, size // 4))
    font = ImageFont.load_default(max(10, round(size * 0.8)))
    for tick in _TICKS:
        anchor = "la" if tick == 0 else "ra" if tick == 1 else "ma"
        x = size // 2 + round(tick * (width - 1))
        draw.text(
            (x, size // 4 + bar.height + size // 6), f"{tick:g}", font=font, fill="white", anchor=anchor
        )
    _lay(image, strip, image.height - height)


def draw_key(image: Image.Image, key: Sequence[tuple[str, Colour]]) -> None:
    """A column of coloured squares with their names, at the lower left; as many as fit."""
    size = _text_size(image)
    font = ImageFont.load_default(size)
    line = round(size * 1.45)
    key = key[: max((image.height - size) // line, 0)]
    texts = [shortened(name, font, image.width - 3 * size) for name, _ in key]
    if not texts:
        return
    strip = _strip(round(max(map(font.getlength, texts))) + round(size * 2.4), line * len(key) + size // 2)
    draw = ImageDraw.Draw(strip)
    for number, (text, (_, colour)) in enumerate(zip(texts, key, strict=True)):
        top = size // 4 + number * line
        draw.rectangle((size // 2, top + line // 6, size // 2 + size, top + line // 6 + size), fill=colour)
        draw.text((round(size * 1.9), top + line // 2), text, font=font, fill="white", anchor="lm")
    _lay(image, strip, image.height - strip.height)


def shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text, cut with an ellipsis where it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _text_size(image: Image.Image) -> int:
    return max(11, min(image.size) // 36)


def _scale_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of the colour bar with its ticks."""
    size = _text_size(image)
    return max(min(size * 14, image.width - 2 * size), 1), round(size * 2.2)


def _strip(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), _GROUND)


def _lay(image: Image.Image, strip: Image.Image, top: int) -> None:
    """Lays a strip over the image's left edge, a little see-through, if it covers no more than half of it."""
    box = (0, top, strip.width, top + strip.height)
    if top >= image.height // 2 - strip.height and top >= 0 and strip.width <= image.width:
        image.paste(Image.blend(image.crop(box), strip, 0.85), box)
