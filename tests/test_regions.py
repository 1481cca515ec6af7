"""Regions of planes made by hand: against a fine sampling of the same surface, and against what is drawn."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import make_map

from fcnconv.errors import UsageError
from fcnconv.grid import Grid
from fcnconv.labels import Labels, Selection
from fcnconv.options import OutputOptions
from fcnconv.options.parsing import Area, parse_extent, parse_share
from fcnconv.scores.regions import Located, Placement, Region, areas_over, find_regions, placement_of_windows

CAT = Selection("cat", (3,), "n3")
CELLS = Placement(0, 0, 10, 10, (300, 200))


def bumps(*centres: tuple[float, float, float], width: float = 30) -> np.ndarray:
    """float32 (20, 30): smooth bumps of some heights at points of an image of 300 × 200 px."""
    x, y = np.meshgrid(*CELLS.centres(20, 30))
    each = [h * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * width**2)) for cx, cy, h in centres]
    return np.max(each, axis=0).astype(np.float32)


def sampled(plane: np.ndarray, level: float, times: int = 16) -> np.ndarray:
    """bool: where the bilinear surface through the cells' centres reaches a level, `times` points a cell."""
    rows, cols = plane.shape
    y, x = (np.clip((np.arange(n * times) + 0.5) / times - 0.5, 0, n - 1) for n in (rows, cols))
    top, left = (np.minimum(p.astype(int), max(n - 2, 0)) for p, n in ((y, rows), (x, cols)))
    fy, fx = (y - top)[:, None], (x - left)[None]
    down, right = np.minimum(top + 1, rows - 1), np.minimum(left + 1, cols - 1)
    upper = plane[np.ix_(top, left)] * (1 - fx) + plane[np.ix_(top, right)] * fx
    lower = plane[np.ix_(down, left)] * (1 - fx) + plane[np.ix_(down, right)] * fx
    return upper * (1 - fy) + lower * fy >= level


@given(st.integers(0, 10_000), st.floats(0.1, 0.9))
@settings(max_examples=40)
def test_areas_are_those_of_the_surface_between_the_cells(seed: int, level: float) -> None:
    rng = np.random.default_rng(seed)
    plane = rng.random((int(rng.integers(1, 7)), int(rng.integers(1, 9)))).astype(np.float32)
    rows, cols = plane.shape
    found = areas_over(plane, Placement(100, 100, 16, 32, (10_000, 10_000)), level)
    fine = sampled(plane, level)
    cells = 16 * 32 * rows * cols  # contours are straight within a cell, where the surface is curved
    assert sum(area.area for area in found) == pytest.approx(fine.sum() * 2, abs=0.15 * cells)
    for one, other in pairwise(found):
        assert one.intersection(other).area == pytest.approx(0, abs=1e-6)
    assert all(area.is_valid and area.area > 0 for area in found)


def test_a_bump_has_one_region_around_its_peak() -> None:
    (region,) = find_regions(bumps((115, 85, 0.9)), CELLS, CAT, OutputOptions(threshold=0.5))
    radius = 30 * np.sqrt(2 * np.log(2))  # where a bump has half of its height
    assert region.peak == (115, 85) and region.probability == pytest.approx(0.9)
    assert region.box == pytest.approx((115 - radius, 85 - radius, 115 + radius, 85 + radius), abs=2)
    assert region.area == pytest.approx(np.pi * radius**2, rel=0.02)
    assert region.area == pytest.approx(region.polygon.area)
    assert 0.45 < region.mean < 0.9
    assert (region.category, region.class_idx, region.wnid) == ("cat", 3, "n3")
    (ring,) = region.rings
    assert ring.shape[1] == 2 and (ring[0] == ring[-1]).all()


def test_each_peak_has_its_own_outline() -> None:
    plane = bumps((85, 65, 0.9), (235, 155, 0.4))
    strong, weak = find_regions(plane, CELLS, CAT, OutputOptions(threshold=0.5, at_least=0.3))
    assert (strong.peak, weak.peak) == ((85, 65), (235, 155))
    assert strong.area == pytest.approx(weak.area, rel=0.1)  # of bumps of one width, whatever their height


def test_what_the_lowest_outline_joins_is_parted_at_its_own() -> None:
    plane = bumps((100, 100, 0.9), (180, 100, 0.8))  # the valley between them is at 0.37
    joined = OutputOptions(at_least=0.5, threshold=0.3)
    assert len(find_regions(plane, CELLS, CAT, joined)) == 1
    assert len(find_regions(plane, CELLS, CAT, replace(joined, threshold=0.6))) == 2


def test_what_is_asked_for_is_what_comes() -> None:
    plane = bumps((55, 55, 0.9), (155, 155, 0.6), (255, 55, 0.3), width=12)

    def peaks(**options: object) -> list[float]:
        found = find_regions(plane, CELLS, CAT, OutputOptions(threshold=0.4, **options))  # type: ignore[arg-type]
        return [round(region.probability, 1) for region in found]

    assert peaks(at_least=0.2) == [0.9, 0.6, 0.3]
    assert peaks() == [0.9, 0.6]  # the default leaves out what is under half of the highest
    assert peaks(at_least=0.4) == [0.9, 0.6] and peaks(at_least=0.95) == []
    assert peaks(at_least=0.2, max_regions=1) == [0.9]
    assert len(peaks(at_least=0.2, min_area=Area(10))) == 3
    assert peaks(at_least=0.2, min_area=Area(0.5, relative=True)) == []
    assert peaks(at_least=0.2, min_area=Area(30_001)) == []


def test_a_ring_has_a_hole() -> None:
    x, y = np.meshgrid(*CELLS.centres(20, 30))
    plane = np.clip(1 - np.abs(np.hypot(x - 150, y - 100) - 60) / 30, 0, 1).astype(np.float32)
    (region,) = find_regions(plane, CELLS, CAT, OutputOptions(threshold=0.5))
    assert len(region.rings) == 2
    assert region.area == pytest.approx(np.pi * (75**2 - 45**2), rel=0.02)
    assert not region.polygon.contains(shapely.Point(150, 100))


@pytest.mark.parametrize("size", [(300, 200), (309, 207)])
def test_a_full_plane_is_the_whole_image(size: tuple[int, int]) -> None:
    (region,) = find_regions(np.ones((20, 30), np.float32), replace(CELLS, image_size=size), CAT)
    assert region.box == (0, 0, *size) and region.area == pytest.approx(size[0] * size[1])


def test_a_plane_of_one_cell() -> None:
    place = Placement(0, 0, 224, 224, (224, 224))
    (region,) = find_regions(np.full((1, 1), 0.7, np.float32), place, CAT)
    assert region.box == (0, 0, 224, 224) and region.probability == pytest.approx(0.7)


def test_nothing_is_found_where_nothing_was_looked_at() -> None:
    plane = bumps((115, 85, 0.9))
    (whole,) = find_regions(plane, CELLS, CAT)
    plane[:, :11] = np.nan
    (half,) = find_regions(plane, CELLS, CAT)
    assert half.box[0] == 110 and half.box[2:] == pytest.approx(whole.box[2:], abs=2)
    right = whole.polygon.intersection(shapely.box(110, 0, 300, 200))
    assert half.area == pytest.approx(right.area, rel=0.05)
    assert find_regions(np.full((4, 4), np.nan, np.float32), CELLS, CAT) == []
    assert find_regions(np.zeros((4, 4), np.float32), CELLS, CAT, OutputOptions(at_least=0.001)) == []


def test_places_scale_with_the_cells() -> None:
    plane = bumps((115, 85, 0.9))
    (one,) = find_regions(plane, CELLS, CAT)
    (other,) = find_regions(plane, Placement(40, 60, 20, 30, (900, 900)), CAT)
    scaled = shapely.transform(one.polygon, lambda points: points * [2, 3] + [40, 60])
    assert scaled.symmetric_difference(other.polygon).area < 1e-3 * scaled.area


def test_a_maps_regions_lie_where_its_windows_do() -> None:
    grid = Grid(32, 8, (400, 400), (200, 200))  # 22 × 22 windows, 16 px apart in the image
    logits = np.full((22, 22, 3), [9, 0, 0], np.float32)
    logits[4:7, 10:13] = [0, 9, 0]
    labels = Labels(("dog", "cat", "house"))
    score_map = make_map(logits, grid, labels)
    (region,) = score_map.regions("cat", at_least=0.9)
    x0, y0, _, _ = grid.square(4, 10)
    _, _, x1, y1 = grid.square(6, 12)
    around = shapely.box(x0, y0, x1, y1)
    assert around.buffer(16).contains(region.polygon) and region.polygon.contains(around.buffer(-8))
    assert score_map.regions(labels.category(1), at_least=0.9) == [region]
    place = placement_of_windows(grid)
    assert (place.x0, place.y0) == grid.square(0, 0)[:2]
    with pytest.raises(UsageError, match="unknown class 'cow'"):
        score_map.regions("cow")
    with pytest.raises(UsageError, match="0 and up to 1"):
        score_map.regions("cat", threshold=0)
    assert len(score_map.regions("dog")) == 1 and score_map.regions("cat", min_area="90%") == []


def test_a_record_holds_all_of_it() -> None:
    x, y = np.meshgrid(*CELLS.centres(20, 30))
    ring = np.clip(1 - np.abs(np.hypot(x - 150, y - 100) - 60) / 30, 0, 1).astype(np.float32)
    located = Located("a/b.jpg", 300, 200, "m", tuple(find_regions(ring, CELLS, CAT)))
    again = Located.of_record(json.loads(json.dumps(located.record())))
    assert again.record() == located.record()
    assert isinstance(again.regions[0], Region) and len(again.regions[0].rings) == 2
    for broken in ({}, {"path": "a"}, located.record() | {"regions": [{}]}):
        with pytest.raises((LookupError, TypeError, ValueError)):
            Located.of_record(broken)


@pytest.mark.parametrize("text", ["0", "-1", "1.01", "nan", "inf", "x", ""])
def test_no_share(text: str) -> None:
    with pytest.raises(UsageError, match="above 0 and up to 1"):
        parse_share(text)


@pytest.mark.parametrize("text", ["-1", "101%", "-1%", "nan", "x", "", "%"])
def test_no_area(text: str) -> None:
    with pytest.raises(UsageError, match="square pixels"):
        parse_extent(text)


def test_areas_are_pixels_or_shares() -> None:
    assert parse_extent("400").pixels((10, 10)) == 400 and parse_extent("1.5%").pixels((100, 200)) == 300
    assert (str(parse_extent("1.5%")), str(parse_extent("400"))) == ("1.5%", "400")
