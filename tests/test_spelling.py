"""What a misspelt class name may mean, and what an unknown one does not."""

import logging

import pytest
from commands import assert_refused
from conftest import SAMPLES, Command

from fcnconv.errors import UsageError
from fcnconv.labels import close_names, edits, folded, imagenet

NAMES = [folded(name) for s in imagenet().selections() for name in s.names]

TYPOS = {
    name: meant
    for name, meant in (
        pair.split(":")
        for pair in (
            "elefant:elephant espreso:espresso tabbi:tabby zebre:zebra labrador_retreiver:labrador_retriever "
            "afrcan_elephant:african_elephant bannana:banana colie:collie pomeranean:pomeranian "
            "tripode:tripod keybord:keyboard ambulence:ambulance persian_catt:persian_cat "
            "siamse_cat:siamese_cat gazele:gazelle jagaur:jaguar pengiun:king_penguin tiger_kat:tiger_cat "
            "dgo:dog bicyle:bicycle umbrela:umbrella camra:camera hammar:hammer accordian:accordion "
            "dalmation:dalmatian mushrom:mushroom strawbery:strawberry gitar:guitar honeybea:bee honeybee:bee"
        ).split()
    )
}

UNKNOWN = (
    "giraffe dolphin unicorn smartphone soldier robot drone tulip octopus kangaroo donkey pigeon salmon "
    "ceiling chimney cancer tumour nucleus soybean birch maple rose tuna sofa girl zzzzqqqq"
).split()


@pytest.mark.parametrize("typed", TYPOS)
def test_a_misspelling_finds_the_name(typed: str) -> None:
    assert TYPOS[typed].replace("_", " ") in close_names(typed.replace("_", " "), NAMES)


@pytest.mark.parametrize("word", UNKNOWN)
def test_a_word_that_is_no_class_gets_no_suggestion(word: str) -> None:
    assert close_names(word, NAMES) == []
    with pytest.raises(UsageError, match=rf"'{word}'.*'fcnconv classes'") as refused:
        imagenet().find(word)
    assert "did you mean" not in str(refused.value)


def test_edits_are_counted() -> None:
    assert [edits("bee", other) for other in ("bee", "bea", "ebe", "be", "beer", "ant")] == [0, 1, 1, 1, 1, 3]
    assert edits("", "abc") == edits("abc", "") == 3


@pytest.mark.parametrize(
    ("part", "meant", "said"), [("espress", None, False), ("tarant", "tarantula", True), ("dog", None, False)]
)
def test_a_lone_match_of_a_part_is_announced(
    part: str, meant: str | None, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fcnconv")
    if part == "espress":
        with pytest.raises(UsageError, match="several"):
            imagenet().find(part)
    else:
        found = imagenet().find(part)
        assert meant is None or found.name == meant
    assert (repr(part) in caplog.text) == said and (str(meant) in caplog.text) == said


def test_the_command_suggests_and_announces(fcnconv: Command) -> None:
    photo = SAMPLES / "coffee.png"
    assert_refused(fcnconv("locate", photo, "-c", "honeybea"), "'honeybea' ... 'bee'")
    done = fcnconv("locate", photo, "-c", "tarant")
    assert done.returncode == 0 and b"'tarant'" in done.stderr and b"tarantula" in done.stderr
