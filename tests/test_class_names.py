"""Names of classes in the files that go around, each read as what it says, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fcnconv.labels import imagenet, named
from fcnconv.labels.class_names import NamesError, names_of_object, read_names

ANIMALS = ("cat", "dog", "bird")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain.txt", "cat\ndog\nbird\n\n"),
        ("indexed.txt", "0 cat\n1 dog\n2 bird\n"),
        ("reordered.txt", "2 bird\n0 cat\n1 dog\n"),
        ("colon.txt", "0: cat\n1: dog\n2: bird\n"),
        ("bracket.txt", "2) bird\n0) cat\n1) dog\n"),
        ("full_stop.txt", "1. cat\n2. dog\n3. bird\n"),
        ("arrow.txt", "cat -> 0\nbird -> 2\ndog -> 1\n"),
        ("tuple.txt", "('cat', 'dog', 'bird')"),
        ("last.txt", "dog 1\ncat 0\nbird 2\n"),
        ("from_one.txt", "1\tcat\n2\tdog\n3\tbird\n"),
        ("header.txt", "index name\n0 cat\n1 dog\n2 bird\n"),
        ("quoted.txt", "'cat',\n'dog',\n'bird',\n"),
        ("comment.txt", "# classes\ncat\ndog\nbird\n"),
        ("indexed.csv", "0,cat\n2,bird\n1,dog\n"),
        ("header.csv", "name,index\nbird,2\ncat,0\ndog,1\n"),
        ("semicolons.csv", "id;name\n0;cat\n1;dog\n2;bird\n"),
        ("alone.csv", "label\ncat\ndog\nbird\n"),
        ("table.tsv", "id\tcode\tname\n1\tx\tcat\n2\ty\tdog\n3\tz\tbird\n"),
        ("list.json", '["cat", "dog", "bird"]'),
        ("by_index.json", '{"2": "bird", "0": "cat", "1": "dog"}'),
        ("to_index.json", '{"bird": 2, "cat": 0, "dog": 1}'),
        ("described.json", '{"dataset": "pets", "classes": ["cat", "dog", "bird"]}'),
        (
            "coco.json",
            '{"categories": [{"id": 2, "name": "dog"}, {"id": 1, "name": "cat"}, {"id": 3, "name": "bird"}]}',
        ),
        ("list.yaml", "- cat\n- dog\n- bird\n"),
        ("yolo.yaml", "train: images\nnc: 3\nnames:\n  0: cat\n  1: dog\n  2: bird\n"),
        ("python.txt", "{0: 'cat', 1: 'dog',\n 2: 'bird'}"),
    ],
)
def test_every_form_gives_the_names_in_their_order(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert read_names(tmp_path / name) == ANIMALS
    (tmp_path / name).write_bytes(text.replace("\n", "\r\n").encode("utf-16"))
    assert read_names(tmp_path / name) == ANIMALS


@pytest.mark.parametrize(
    "text",
    [
        "1 star\n2 stars\n3 stars\n",
        "class 0\nclass 1\nclass 2\n",
        "Acura Integra 2001\nAudi V8 1994\nBMW M3 2012\n",
        "cat\n7 up\ndog\n",
        "tench, Tinca tinca\ngoldfish, Carassius auratus\n",
        "0-9\n10-19\n20-29\n",
        "1.5 m\n2.5 m\n4.0 m\n",
        "(other)\n(none)\n",
    ],
)
def test_numbers_that_are_part_of_names_stay(text: str, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text(text)
    assert read_names(tmp_path / "names.txt") == tuple(text.splitlines())


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "gap.txt",
            "0 cat\n2 dog\n3 bird\n",
            r"1 is missing.*line 1: class 0 is 'cat'; line 2: class 2 is 'dog'",
        ),
        ("twice.txt", "0 cat\n1 dog\n1 bird\n", "indices that appear twice: 1"),
        ("mixed.txt", "0 cat\n1 dog\nbird\n", "some lines have an index and others do not.*line 3: 'bird'"),
        ("numbers.txt", "0 1\n1 2\n2 0\n", "which number is the index"),
        ("columns.csv", "cat,felid\ndog,canid\n", "which column holds the names.*row 1: 'cat', 'felid'"),
        ("numbers.csv", "5\n7\n", "are its numbers indices or names"),
        ("strings.json", '{"cat": "felid"}', "neither its keys nor its values are indices"),
        ("both.json", '{"0": 1, "1": 0}', "both keys and values are numbers"),
        ("cut.json", '{"0": "cat"', "neither JSON nor a Python"),
        ("call.txt", "{0: __import__('os').getcwd()}", "neither JSON nor a Python"),
        ("map.pbtxt", "item {\n  id: 1\n}\n", "a program's own notation"),
        ("object.yaml", "!!python/object/apply:os.getcwd []\n", "not YAML"),
        ("number.json", '["cat", null]', "name 1 is None"),
        ("gap.csv", "id,name\n0,cat\n5,dog\n", "1 is missing"),
        ("hashes.txt", "#cat\n#dog\n", "start with #"),
        ("null.json", "null", "a list or dictionary of names is expected, not None"),
        ("gap2.txt", "cat\n\ndog\n", "line 2 is empty"),
    ],
)
def test_what_could_be_meant_in_two_ways_is_refused(
    name: str, text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(NamesError, match=message):
        read_names(tmp_path / name)


def test_a_quoted_cell_may_hold_commas_and_lines(tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text('\ufeffid,name\n1,"dog,\ndomestic"\n0,cat\n')
    assert read_names(tmp_path / "names.csv") == ("cat", "dog, domestic")


def test_another_encoding_is_told(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes("chat\noiseau bébé\n".encode("latin-1"))
    with pytest.raises(NamesError, match=r"byte 13 is not UTF-8.*iconv"):
        read_names(tmp_path / "names.txt")


def test_lists_of_imagenet_get_its_names_and_concepts(tmp_path: Path) -> None:
    known = imagenet()
    pairs = list(zip(known.wnids, known.categories, strict=True))
    texts = {
        "synsets.txt": "".join(f"{wnid}\n" for wnid, _ in pairs),
        "synset_words.txt": "".join(f"{wnid} {name}\n" for wnid, name in pairs),
        "imagenet_class_index.json": json.dumps({str(i): pair for i, pair in enumerate(pairs)}),
        "clsidx_to_labels.txt": "{"
        + ",\n ".join(f"{i}: {name!r}" for i, (_, name) in enumerate(pairs))
        + "}",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        assert named(read_names(tmp_path / name)) is known, name
    some = named(names_of_object({wnid: i for i, wnid in enumerate(known.wnids[3:6])}))
    assert some.categories == known.categories[3:6]
    assert some.wnids == known.wnids[3:6]
