"""The Python interface as people use it: names as strings, lists of images, and its help."""

import inspect
import pydoc
import re

import numpy as np
import pytest
from conftest import SAMPLES
from PIL import Image

import fcnconv
from fcnconv.api.classifier import Classifier
from fcnconv.api.maps import ScoreMap

COFFEE, CHELSEA = SAMPLES / "coffee.png", SAMPLES / "chelsea.png"


@pytest.fixture(scope="module")
def score_map(lite0: Classifier) -> ScoreMap:
    return lite0(CHELSEA)


def test_the_map_of_a_class_is_found_by_its_name(score_map: ScoreMap) -> None:
    probabilities = score_map.probabilities()
    tabby = score_map.labels.find("tabby").classes
    np.testing.assert_array_equal(score_map["tabby"], probabilities[:, :, tabby[0]])
    cats = score_map.labels.find("domestic cat").classes
    np.testing.assert_allclose(score_map["domestic cat"], probabilities[:, :, cats].sum(-1), rtol=1e-6)
    with pytest.raises(fcnconv.UsageError, match="'nonesuch'"):
        score_map["nonesuch"]


def test_one_name_is_no_list_of_letters(score_map: ScoreMap) -> None:
    one, several = score_map.plot("tabby"), score_map.plot(["tabby"])
    assert isinstance(one, Image.Image) and one.tobytes() == several.tobytes()
    assert score_map.plot(score_map.labels.find("tabby")).tobytes() == one.tobytes()


def test_a_list_of_images_gives_a_list_of_answers(lite0: Classifier) -> None:
    with Image.open(CHELSEA) as photo:
        answers = lite0.classify([COFFEE, photo.convert("RGB")], k=2)
    assert answers == [lite0.classify(COFFEE, k=2), lite0.classify(CHELSEA, k=2)]
    assert lite0.classify([]) == []


def test_the_help_of_load_explains_each_argument() -> None:
    text = pydoc.plain(pydoc.render_doc(fcnconv.load))
    arguments = text.split("Args:\n")[1].split("Returns:\n")[0]
    explained = re.findall(r"^ {8,12}(\w+): \S", arguments, re.M)
    assert explained == list(inspect.signature(fcnconv.load).parameters)
    assert len(re.findall(r">>> classifier = fcnconv.load\(", text)) == 2


def test_the_default_that_the_help_names_is_the_real_one() -> None:
    from fcnconv.images.reading import MAX_PIXELS

    assert f"{MAX_PIXELS:,}" in str(fcnconv.load.__doc__)
