"""The colours of maps: scales for probabilities, and distinct colours for classes.

The distinct colours are defined in OKLab (Ottosson, "A perceptual color space for image processing", 2020),
where equal steps look equal.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from fcnconv.options import DEFAULT_COLOUR_MAP, ColourMap

_Floats = npt.NDArray[np.float64]
Colours = npt.NDArray[np.uint8]

_GOLDEN_ANGLE = 137.508


COLOUR_MAPS = {
    "turbo": "4040a2 466be3 4293ff 28bbec 18dcc3 31f299 6bfe64 a2fc3c cced34 edd03a fdad35 fb8022 ec520f "
    "d23105 ac1701",
    "inferno": "000004 0b0724 210c4a 3d0965 56106e 70196e 89226a a32c61 bb3654 d14545 e35932 f1721e f98c0a "
    "fcaa0f f9c932 f2e865 fcffa4",
    "magma": "000004 0a0822 1d1147 36106b 50127c 691c81 822681 9c2e7f b6367a cf4070 e65164 f46a5c fb8861 "
    "fea571 fec287 fde0a1 fcfdbf",
    "plasma": "0d0887 310597 4c02a1 6600a7 7e03a8 9511a1 a92395 bc3587 cc4678 d9596a e56b5d f07f4f f89441 "
    "fdab33 fdc328 f9dd25 f0f921",
    "viridis": "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21908c 1f9f88 27ad81 3ebc74 5cc863 "
    "82d34d aadc32 d5e21a fde725",
    "cividis": "00224e 002e6a 1a386f 32436d 434e6c 535a6d 61656f 6f7073 7c7c78 8b8778 9a9376 aaa073 bbad6d "
    "ccba64 ddc858 efd748 fee838",
}
"""Colours at even steps of the scale, as hexadecimal sRGB.

Turbo is Mikhailov's (Google, 2019) without its darkest ends. The others are van der Walt and Smith's
(matplotlib, 2015) and Nuñez, Anderton and Renslow's (cividis, 2018). Turbo is the default: of seven colour
maps drawn over 22 dark, green, blue and bright photos, it was the only one whose middle stayed visible in all
of them. Lightness rises evenly in the others; cividis suits readers with colour vision deficiency.
"""

STEPS = 1024
"""Steps of the colour scale in pictures: finer than 8 bits can show, so that no bands appear."""


@cache
def colour_map(name: ColourMap = DEFAULT_COLOUR_MAP) -> Colours:
    """Returns uint8 (256, 3): the colours of probabilities 0 to 1."""
    colours: Colours = np.round(smooth_colours(name, 256)).astype(np.uint8)
    return colours


@cache
def smooth_colours(name: ColourMap, steps: int = STEPS) -> npt.NDArray[np.float32]:
    """Returns float32 (steps, 3), 0 to 255: the colours of probabilities 0 to 1, not rounded."""
    points = np.array([list(bytes.fromhex(colour)) for colour in COLOUR_MAPS[name].split()], np.float32)
    at, known = np.linspace(0, 1, steps), np.linspace(0, 1, len(points))
    channels = np.stack([np.interp(at, known, channel) for channel in points.T], axis=-1)
    return channels.astype(np.float32)


@cache
def opacity_map(steps: int = 256) -> npt.NDArray[np.float32]:
    """Returns float32 (steps,), 0 to 1: the opacity of the colour for probabilities 0 to 1.

    Probability 0 is transparent. The opacity rises smoothly and is nearly complete at 0.3, where a class is
    one of three candidates: above 0.3 the colour shows how probable the class is, and below it the photo
    shows through.
    """
    p = np.linspace(0, 1, steps)
    early = np.minimum(p / 0.3, 1)
    share: npt.NDArray[np.float32] = (0.58 * early**2 * (3 - 2 * early) + 0.14 * p).astype(np.float32)
    return share


def distinct_colours(count: int) -> Colours:
    """Returns uint8 (count, 3): colours that distinguish classes, with the first ones furthest from each
    other.

    Hues follow the golden angle, so that each hue falls into the widest remaining gap. Lightness alternates
    in three steps, which also separates neighbours for readers with colour vision deficiency.
    """
    i = np.arange(count)
    return _srgb(
        np.array([0.72, 0.58, 0.84])[i % 3], np.full(count, 0.11), np.deg2rad(40 + _GOLDEN_ANGLE * i)
    )


def _srgb(lightness: _Floats, chroma: _Floats, hue: _Floats) -> Colours:
    """Converts OKLab colours in polar form, hue in radians, to sRGB, uint8 (n, 3)."""
    linear = np.clip(_linear_srgb(lightness, chroma * np.cos(hue), chroma * np.sin(hue)), 0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(255 * srgb.T).astype(np.uint8)


def _linear_srgb(lightness: _Floats, a: _Floats, b: _Floats) -> _Floats:
    """Converts OKLab colours to linear sRGB, (3, n), by the two matrices of its definition."""
    cones = np.stack(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ]
    )
    matrix = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear: _Floats = matrix @ cones**3
    return linear
