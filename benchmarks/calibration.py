"""How honest the probabilities of `classify` are: accuracy and mean probability, for several temperatures.

    python benchmarks/calibration.py PHOTOS [--model NAME]

PHOTOS is a folder of photos of one class each, whose names begin with the class's WordNet id, such as
``n01514668_cock.jpg``. The expected calibration error is the mean difference between the probability of the
top class and its accuracy, over ten bins of equal width.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np

import fcnconv
from fcnconv.models import DEFAULT_MODEL
from fcnconv.scores.activations import softmax

TEMPERATURES = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.85, 1.0)
BINS = 10


def calibration_error(probability: np.ndarray, right: np.ndarray) -> float:
    """probability, right: (photos,), of the top class."""
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    return sum(
        abs(probability[place == n].mean() - right[place == n].mean()) * (place == n).mean()
        for n in range(BINS)
        if (place == n).any()
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    given = parser.parse_args()
    logging.getLogger("fcnconv").setLevel(logging.WARNING)
    classifier = fcnconv.load(given.model)
    index = {classifier.labels.wnid(i): i for i in range(len(classifier.labels))}
    found = [(path, index.get(path.name.split("_")[0])) for path in sorted(given.photos.iterdir())]
    photos = [(path, i) for path, i in found if i is not None]
    logits = np.stack([classifier(path, scales="fit").logits.mean((0, 1)) for path, _ in photos])
    truth = np.array([i for _, i in photos])
    print(f"{given.model}: {len(photos)} photos, {(logits.argmax(-1) == truth).mean():.3f} right\n")
    print("| temperature | mean probability of the top class | expected calibration error |\n|---|---|---|")
    for temperature in TEMPERATURES:
        top = softmax(logits / np.float32(temperature)).max(-1)
        error = calibration_error(top, logits.argmax(-1) == truth)
        now = ", as `classify`" if temperature == classifier.answer_temperature else ""
        print(f"| {temperature:g}{now} | {top.mean():.3f} | {error:.3f} |")


if __name__ == "__main__":
    main()
