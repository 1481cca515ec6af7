"""Asking by name on the command line: classes, concepts and what the shell completes."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import assert_refused
from conftest import SAMPLES, Command
from patience import PATIENCE

from fcnconv.api.classifier import Classifier
from fcnconv.errors import UsageError
from fcnconv.labels import imagenet, numbered
from fcnconv.models import models

CHELSEA, COFFEE = SAMPLES / "chelsea.png", SAMPLES / "coffee.png"


def test_classes_lists_every_category_and_concept(fcnconv: Command) -> None:
    done = fcnconv("classes")
    rows = [line.split("\t") for line in done.stdout.decode().splitlines()]
    assert (done.returncode, len(rows)) == (0, 1000 + len(imagenet().concepts))
    assert ["×118", "n02084071", "dog, domestic dog, canis familiaris"] in rows
    assert ["967", "n07920052", "espresso"] in rows


def test_classes_in_json_can_be_given_back(fcnconv: Command) -> None:
    done = fcnconv("classes", "CAMERA", "--json")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["name"] for record in records] == ["camera", "Polaroid camera", "reflex camera"]
    for record in records:
        assert imagenet().find(record["name"]).classes == tuple(record["classes"])
        assert imagenet().find(record["wnid"]).classes == tuple(record["classes"])


def test_a_pattern_that_fits_nothing_fails(fcnconv: Command) -> None:
    done = fcnconv("classes", "zzz")
    assert_refused(done, "'zzz'", status=1)


def test_an_unsure_image_is_told_by_its_concept(fcnconv: Command) -> None:
    done = fcnconv("classify", "--level", "concept", "--at-least", "0.8", CHELSEA, COFFEE)
    rows = [line.split("\t") for line in done.stdout.decode().splitlines()]
    assert [row[1:3] for row in rows] == [["1", "domestic cat"], ["1", "espresso"]]
    assert float(rows[0][3]) >= 0.8
    record = json.loads(
        fcnconv("classify", "--level", "concept", "--at-least", "0.8", "--json", CHELSEA).stdout
    )
    (answer,) = record["predictions"]
    assert (answer["class_idx"], answer["wnid"], answer["category"]) == (None, "n02121808", "domestic cat")


def test_a_concepts_probability_is_the_sum_of_its_categories(lite0: Classifier) -> None:
    everything = lite0.classify(CHELSEA, k=1000).predictions
    probability = {p.class_idx: p.probability for p in everything}
    answer = lite0.classify(CHELSEA, at_least=0.8).predictions[0]
    concept = imagenet().find(answer.category)
    assert answer.probability == pytest.approx(sum(probability[i] for i in concept.classes), abs=1e-5)
    assert answer.probability >= 0.8 > everything[0].probability


def test_classes_without_concepts_have_no_such_level(lite0: Classifier) -> None:
    from dataclasses import replace

    with pytest.raises(UsageError, match="has no concepts above its classes"):
        replace(lite0, labels=numbered(1000)).classify(CHELSEA, at_least=0.8)


def test_an_unknown_level_is_a_wrong_argument(fcnconv: Command) -> None:
    done = fcnconv("classify", "--level", "genus", CHELSEA)
    assert_refused(done, "--level ... 'genus' ... 'category', 'concept' ... fcnconv classify -h")


def test_the_map_of_cats_is_the_sum_of_the_cats(fcnconv: Command, tmp_path: Path, lite0: Classifier) -> None:
    out = tmp_path / "cats.npy"
    assert fcnconv("heatmap", CHELSEA, "-c", "cat", "-c", "cup", "-o", out).returncode == 0
    probabilities = lite0(CHELSEA).probabilities()
    expected = np.stack([probabilities[:, :, 281:288].sum(-1), probabilities[:, :, 968]], axis=-1)
    assert np.abs(np.load(out) - expected).max() < 1e-5


def completions(*words: str, shell: str = "bash") -> tuple[list[str], set[str]]:
    """What a shell is offered for the last of the words, and the top-level modules that were imported."""
    code = (
        "import sys; sys.argv = ['fcnconv']\n"
        "from fcnconv.cli.app import make_app\n"
        "try: make_app()(prog_name='fcnconv')\n"
        "finally: print(*{name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    request = {
        "_FCNCONV_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "\n".join(["fcnconv", *words]),
        "COMP_CWORD": str(len(words)),
        "_TYPER_COMPLETE_ARGS": " ".join(["fcnconv", *words]),
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | request,
        timeout=PATIENCE,
    )
    return done.stdout.splitlines(), set(done.stderr.splitlines()[-1].split())


def test_names_are_completed_without_torch_and_numpy() -> None:
    for words, offered in [
        (["heatmap", "x.jpg", "--class", "golden_r"], ["golden_retriever"]),
        (["heatmap", "x.jpg", "-c", "yellow_l"], ["yellow_ladys_slipper"]),
        (["heatmap", "x.jpg", "--class", "camer"], ["camera"]),
        (["classify", "--model", "efficientnet_l"], [n for n in models() if n.startswith("efficientnet_l")]),
    ]:
        found, modules = completions(*words)
        assert found == offered
        assert "fcnconv" in modules
        assert not modules & {"torch", "torchvision", "onnxruntime", "numpy", "PIL"}


def test_fish_is_told_what_a_name_is() -> None:
    found, _ = completions("heatmap", "x.jpg", "--class", "terr", shell="fish")
    assert found == ["terrapin\tcategory", "terrier\t26 categories"]


def test_every_completion_is_one_plain_word_that_finds_what_it_names() -> None:
    from fcnconv.cli.arguments import complete_class

    ambiguous = {"cardigan"}  # the dog is Cardigan, the garment cardigan
    words = [word for word, _ in complete_class("")]
    assert len(words) > 1500
    for word in words:
        assert all(char.isalnum() or char in "_-." for char in word)
    for word in random.Random(0).sample(words, 200):  # each is compared with all names
        if word not in ambiguous:
            assert imagenet().find(word).classes


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_completion_is_installed_and_bash_uses_it(tmp_path: Path) -> None:
    environment = os.environ | {
        "HOME": str(tmp_path),
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = tmp_path / "fcnconv"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fcnconv "$@"\n')
    command.chmod(0o755)
    environment["PATH"] = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["fcnconv", "--install-completion", "bash"], capture_output=True, env=environment, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    script = (
        "source ~/.bashrc; COMP_WORDS=(fcnconv heatmap x.jpg --class pomer); COMP_CWORD=4;"
        '_fcnconv_completion fcnconv; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env=environment, timeout=PATIENCE
    )
    assert done.stdout == "pomeranian\n"
