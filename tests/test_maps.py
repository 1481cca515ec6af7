"""Many images to a folder of maps: what is made, kept, refused and told, through the real command."""

import json
import shutil
from pathlib import Path, PurePath

import numpy as np
import pytest
from conftest import SAMPLES, Command
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny import make_map

from fcnconv.api.maps import foremost
from fcnconv.batch.folders import answer_name
from fcnconv.batch.inputs import from_sources
from fcnconv.errors import UsageError
from fcnconv.grid import Grid
from fcnconv.labels import Labels
from fcnconv.options import OutputOptions

SUFFIXES = frozenset((".png", ".jpg"))


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of three photos, one of them deeper, and of things that are none; the working directory's."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    shutil.copy(SAMPLES / "coffee.png", folder / "b.png")
    shutil.copy(SAMPLES / "chelsea.png", folder / "a.PNG")
    shutil.copy(SAMPLES / "rocket.jpg", folder / "more" / "b.jpg")
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.png").write_text("not an image")
    return folder


def test_a_folder_is_mapped_and_a_second_run_goes_on(fcnconv: Command, photos: Path) -> None:
    made = [f"maps/photos/{name}.npz" for name in ("a.PNG", "b.png", "more/b.jpg")]
    done = fcnconv("batch", "photos", "-o", "maps", "-c", "espresso")
    assert (done.returncode, done.stdout.decode().splitlines()) == (0, made), done.stderr
    assert b"3 images: 3 written\n" in done.stderr
    alone = fcnconv("heatmap", "photos/b.png", "-o", "alone.npz", "-c", "espresso")
    assert alone.returncode == 0
    with np.load("alone.npz") as one, np.load(made[1]) as other:
        assert one.files == other.files
        for name in one.files:
            if one[name].dtype.kind == "f" and one[name].ndim:  # blocks may differ, and with them roundings
                assert np.abs(one[name] - other[name]).max() <= 1e-5
            else:
                assert np.array_equal(one[name], other[name])
    Path(made[0]).unlink()
    times = [Path(name).stat().st_mtime_ns for name in made[1:]]
    again = fcnconv("batch", "photos", "-o", "maps", "-c", "espresso", "--json")
    assert [json.loads(line)["new"] for line in again.stdout.splitlines()] == [True, False, False]
    assert [Path(name).stat().st_mtime_ns for name in made[1:]] == times
    assert fcnconv("batch", "photos", "-o", "maps", "-c", "espresso", "--overwrite").returncode == 0
    assert all(Path(name).stat().st_mtime_ns > before for name, before in zip(made[1:], times, strict=True))


def test_maps_that_were_made_in_another_way_are_not_mixed(fcnconv: Command, photos: Path) -> None:
    assert fcnconv("batch", "photos/b.png", "-o", "maps", "-f", "json").returncode == 0
    done = fcnconv("batch", "photos/b.png", "-o", "maps", "-f", "json", "--scales", "0.9")
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1
    assert b"maps: contains maps made with scales '1', not '0.9'; name another folder" in done.stderr
    assert fcnconv("batch", "photos/b.png", "-o", "maps", "-f", "csv", "--overwrite").returncode == 0
    Path("maps/fcnconv.json").write_text("{")
    done = fcnconv("batch", "photos/b.png", "-o", "maps", "-f", "csv")
    assert done.returncode == 1 and b"fcnconv.json: damaged" in done.stderr


def test_maps_from_before_an_overwriting_run_that_was_stopped_are_made_again(
    fcnconv: Command, photos: Path
) -> None:
    assert fcnconv("batch", "photos", "-o", "maps", "-f", "json").returncode == 0
    # as if stopped after its first image
    assert (
        fcnconv("batch", "photos/b.png", "-o", "maps", "-f", "json", "-k", "1", "--overwrite").returncode == 0
    )
    done = fcnconv("batch", "photos", "-o", "maps", "-f", "json", "-k", "1", "--json")
    assert [json.loads(line)["new"] for line in done.stdout.splitlines()] == [True, False, True]
    cells = json.loads(Path("maps/photos/a.PNG.json").read_text())["cells"]
    assert {len(cell["predictions"]) for cell in cells} == {1}


def test_settings_of_a_run_that_made_nothing_bind_nobody(fcnconv: Command, photos: Path) -> None:
    failed = fcnconv("batch", "missing.png", "-o", "maps", "--scales", "1,0.9")
    assert failed.returncode == 1 and Path("maps/fcnconv.json").is_file()
    assert fcnconv("batch", "photos/b.png", "-o", "maps", "--refine", "0.1").returncode == 0


def test_a_failed_image_is_told_and_the_rest_is_done(fcnconv: Command, photos: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"no image")
    done = fcnconv("batch", "photos", "missing.png", "-o", "maps", "-f", "json", "--json")
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["path"] for line in lines if "error" in line] == ["photos/broken.jpg", "missing.png"]
    assert len([line for line in lines if "map" in line]) == 3
    assert b"5 images: 3 written, 2 failed" in done.stderr
    assert not [path for path in Path("maps").rglob("*") if "broken" in path.name or "missing" in path.name]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["photos"], b"name a folder for the maps with --out"),
        (["-o", "maps"], b"name images, folders or patterns"),
        (["nothing/*.png", "-o", "maps"], b"nothing/*.png: no image matches"),
        (["photos", "-o", "maps", "-f", "xyz"], b"unknown format 'xyz'"),
        (["photos", "-o", "maps", "--shard", "3/2"], b"unknown shard '3/2'; give I/N"),
        (["photos", "-o", "maps", "--from0", "list"], b"name images in one way"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_made(
    fcnconv: Command, photos: Path, arguments: list[str], said: bytes
) -> None:
    done = fcnconv("batch", *arguments)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count(b"\n") == 1
    assert not Path("maps").exists()


def test_shards_are_all_images_once(fcnconv: Command, photos: Path) -> None:
    found = [
        fcnconv("batch", "photos/**/*", "-o", "maps", "-f", "json", "--shard", f"{i}/2").stdout.splitlines()
        for i in (1, 2)
    ]
    assert len(found[0]) + len(found[1]) == len(set(found[0] + found[1])) == 3


NAMES = st.lists(
    st.text("ab.", min_size=1, max_size=3).filter(lambda part: part != "."), min_size=1, max_size=4
)


@given(one=NAMES, other=NAMES, root=st.booleans())
def test_no_two_images_share_a_map_and_none_leaves_the_folder(
    one: list[str], other: list[str], root: bool
) -> None:
    first, second = ("/".join(parts) for parts in (one, other))
    folder = Path("maps")
    for name in (first, second, "/" + first if root else first):
        path = folder / answer_name(name, "npz")
        assert path.parts[0] == "maps" and ".." not in path.parts and path.name.endswith(".npz")
    ups = any(".." in PurePath(name).parts for name in (first, second))
    if not ups and PurePath(first) != PurePath(second):
        assert answer_name(first, "npz") != answer_name(second, "npz")


def test_sources_are_found_in_order_without_what_is_made(photos: Path) -> None:
    def names(*sources: str) -> list[str]:
        return [item.name for item in from_sources(sources, SUFFIXES, Path("photos/more"))]

    assert names("photos") == ["photos/a.PNG", "photos/b.png"]
    assert names("photos/*.png", "no.png") == ["photos/b.png", "no.png"]
    assert names("photos/**/b*") == ["photos/b.png", "photos/more/b.jpg"]
    with pytest.raises(UsageError, match="no image matches"):
        from_sources(["photos/*.gif"], SUFFIXES, Path("maps"))


@pytest.mark.parametrize(
    ("named", "suffix"), [(".png", "png"), ("PNG", "png"), ("jpeg", "jpg"), (".tiff", "tif")]
)
def test_a_format_is_named_in_any_usual_way(fcnconv: Command, photos: Path, named: str, suffix: str) -> None:
    done = fcnconv("batch", "photos/b.png", "-o", "maps", "-f", named, "-c", "cup", "--scales", "0.6")
    assert (done.returncode, done.stdout.decode()) == (0, f"maps/photos/b.png.{suffix}\n"), done.stderr


def test_fit_opens_a_large_photo_in_one_way(fcnconv: Command, photos: Path) -> None:
    with Image.open(SAMPLES / "coffee.png") as photo:
        photo.convert("RGB").resize((3000, 2000)).save("photos/large.jpg", quality=92)
    assert fcnconv("batch", "photos/large.jpg", "-o", "maps", "--scales", "fit", "-f", "npy").returncode == 0
    assert fcnconv("heatmap", "photos/large.jpg", "-o", "alone.npy", "--scales", "fit").returncode == 0
    assert np.abs(np.load("maps/photos/large.jpg.npy") - np.load("alone.npy")).max() <= 1e-5


def test_what_changes_scores_is_in_the_settings(fcnconv: Command, photos: Path) -> None:
    run = ("batch", "photos/b.png", "-o", "maps", "-f", "json", "-k", "1")
    assert fcnconv(*run).returncode == 0
    settings = json.loads(Path("maps/fcnconv.json").read_text())
    assert {"device", "backend", "mode", "stride", "temperature", "scales", "join"} <= set(settings)
    assert "max_memory" not in settings  # of a network whose tiles equal the whole
    assert fcnconv(*run, "--max-memory", "1GB").returncode == 0
    assert b"maps made with device 'auto', not 'cpu'" in fcnconv(*run, "--device", "cpu").stderr


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_a_photo_in_the_folder_is_not_replaced_by_a_map(fcnconv: Command, photos: Path, suffix: str) -> None:
    with Image.open(SAMPLES / "coffee.png") as photo:
        photo.save("a.png")
        photo.convert("RGB").save(f"a.png.{suffix}")  # where the map of a.png goes
    before = Path(f"a.png.{suffix}").read_bytes()
    for run in ([], ["--overwrite"]):
        done = fcnconv("batch", "a.png", "-o", ".", "-f", suffix, "-c", "cup", "--scales", "0.6", *run)
        assert done.returncode == 1 and done.stderr.count(b"would be replaced by the map") == 1
        assert Path(f"a.png.{suffix}").read_bytes() == before
    Path(f"a.png.{suffix}").unlink()
    for _ in range(2):  # a map of ours is
        done = fcnconv(
            "batch", "a.png", "-o", ".", "-f", suffix, "-c", "cup", "--scales", "0.6", "--overwrite"
        )
        assert done.returncode == 0, done.stderr


def test_the_foremost_things_are_at_different_places() -> None:
    probabilities = np.full((6, 9, 5), 0.01, np.float32)
    probabilities[:, :3, 0] = 0.6  # a thing, and another name of it
    probabilities[:, :3, 1] = 0.3
    probabilities[:, 6:, 2] = 0.4  # a second thing, less probable
    probabilities[2, 4, 3] = 0.5  # a third one
    probabilities[:, 3:5, 4] = 0.09  # too faint to be one
    grid = Grid(64, 16, (64 + 8 * 16, 64 + 5 * 16), (64 + 8 * 16, 64 + 5 * 16))
    labels = Labels(tuple("abcde"), activation="sigmoid")
    score_map = make_map(np.log(probabilities / (1 - probabilities)), grid, labels)
    for count, expected in ((1, "a"), (2, "ad"), (3, "adc"), (9, "adc")):
        found = foremost(score_map, labels.category(0), count)
        assert "".join(selection.name for selection in found) == expected
    assert [selection.name for selection in foremost(score_map, labels.category(2), 2)] == ["c", "a"]
    with pytest.raises(UsageError, match="--top and --class"):
        score_map.plot(["a"], options=OutputOptions(top=2))
