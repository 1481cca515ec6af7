"""The peer: timm's way to classify an image, with the same weights in timm's own network."""

import sys

import timm
import torch
from peers import timm_lite0
from PIL import Image

from fcnconv.labels import imagenet

model = timm_lite0()
transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))
for path in sys.argv[1:]:
    with torch.inference_mode():
        x = transform(Image.open(path).convert("RGB"))
        probabilities = model(x[None])[0].softmax(0)
    for p, i in zip(*probabilities.topk(5), strict=True):
        print(path, f"{p:.4f}", imagenet().categories[i], sep="\t")
