"""Finding categories and concepts by name, and the table of concepts against WordNet itself."""

import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE

from fcnconv.errors import UsageError
from fcnconv.labels import Labels, folded, imagenet, named, numbered

DATA = Path(__file__).parents[1] / "fcnconv" / "data"
MAKE_CONCEPTS = Path(__file__).parents[1] / "docs/maintain/make_concepts.py"
WORDNET = Path("/usr/share/wordnet")


@pytest.mark.parametrize(
    ("query", "class_idx"),
    [
        ("207", 207),
        ("n02099601", 207),
        ("golden retriever", 207),
        ("GOLDEN_Retriever", 207),
        ("golden r", 207),
        ("lden retr", 207),
        ("teapots", 849),
        ("yellow ladys slipper", 986),
        ("cup", 968),  # a category's whole name goes before the parts of others
        ("mask", 643),
    ],
)
def test_a_category_is_found_by_index_id_and_name(query: str, class_idx: int) -> None:
    found = imagenet().find(query)
    assert (found.class_idx, found.classes) == (class_idx, (class_idx,))


@pytest.mark.parametrize(
    ("query", "name", "size"),
    [
        ("dog", "dog", 118),
        ("domestic dog", "dog", 118),
        ("n02084071", "dog", 118),
        ("Dogs", "dog", 118),  # not the dogsled
        ("bird", "bird", 59),
        ("cat", "cat", 7),  # not the catamaran
        ("vehicle", "vehicle", 67),
        ("camera", "camera", 2),
        ("musical instr", "musical instrument", 26),
        ("automobile", "car", 10),
    ],
)
def test_a_concept_is_found_by_each_of_its_names(query: str, name: str, size: int) -> None:
    found = imagenet().find(query)
    assert (found.name, len(found.classes), found.class_idx) == (name, size, None)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("1000", "class index 1000 is out of range: this model has classes 0 to 999"),
        ("retriver", "did you mean 'retriever'"),
        ("espres", "fits several: 550 espresso maker, 967 espresso; give the index"),
        ("qqqq", "unknown class 'qqqq'; 'fcnconv classes' lists"),
        ("", "unknown class ''"),
    ],
)
def test_what_is_not_found_is_told(query: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("'", ".")):
        imagenet().find(query)


def test_every_category_is_found_by_its_own_name() -> None:
    labels = imagenet()
    assert [labels.find(name).class_idx for name in labels.categories] == list(range(1000))


def test_classes_of_ones_own_have_no_concepts() -> None:
    assert named(["cat", "dog"]).concepts == numbered(2).concepts == ()
    assert named(["tumour", "stroma"]).find("tum").classes == (0,)
    assert named(imagenet().categories) is imagenet()


def test_names_of_concepts_are_unique_and_no_category() -> None:
    labels = imagenet()
    names = [name for concept in labels.concepts for name in concept.names]
    assert len(names) == len(set(names)) == len({folded(name) for name in names})
    assert not set(names) & {name.lower() for name in labels.categories}
    assert all(name == name.lower() for name in names)


def test_concepts_differ_and_hold_two_categories_or_more() -> None:
    concepts = imagenet().concepts
    assert len({concept.classes for concept in concepts}) == len(concepts) > 300
    for concept in concepts:
        assert 2 <= len(concept.classes) <= 1000
        assert list(concept.classes) == sorted(set(concept.classes))
    assert [len(c.classes) for c in concepts] == sorted((len(c.classes) for c in concepts), reverse=True)


@pytest.mark.skipif(not WORDNET.is_dir(), reason="needs WordNet: apt-get install wordnet-base")
def test_the_table_is_what_its_script_makes_of_wordnet() -> None:
    made = subprocess.run(
        [sys.executable, MAKE_CONCEPTS, WORDNET], capture_output=True, check=True, timeout=PATIENCE
    )
    assert made.stdout == DATA.joinpath("concepts.tsv").read_bytes()


@pytest.mark.skipif(not WORDNET.is_dir(), reason="needs WordNet: apt-get install wordnet-base")
def test_the_dogs_are_what_a_walk_up_wordnet_finds() -> None:
    """An oracle that shares nothing with the script: from each category up, along every parent."""
    lines = WORDNET.joinpath("data.noun").read_text().splitlines()
    parents = {}
    for line in lines:
        offset, *fields = line.split("|")[0].split()
        parents[offset] = [fields[i + 1] for i, field in enumerate(fields) if field in ("@", "@i")]

    def reaches(offset: str, goal: str) -> bool:
        return offset == goal or any(reaches(parent, goal) for parent in parents[offset])

    labels: Labels = imagenet()
    for name in ("dog", "vehicle", "bird", "camera", "container"):
        concept = labels.find(name)
        assert concept.wnid is not None
        found = [i for i, wnid in enumerate(labels.wnids) if reaches(wnid[1:], concept.wnid[1:])]
        assert tuple(found) == concept.classes


def test_an_answer_finds_its_own_class_whatever_the_names_are() -> None:
    numbers = Labels(("7", "1", "1"))
    for i in range(3):
        assert numbers.same(i, numbers.categories[i]).classes == (i,)
    dog = imagenet().find("dog")
    assert imagenet().same(None, "dog") == dog
