"""The peer: the twenty lines that torchvision teaches, for the network that fcnconv brings along."""

import sys

import torch
from PIL import Image
from torchvision import transforms

from fcnconv.labels import imagenet
from fcnconv.models import find_model

spec = find_model("efficientnet_lite0")
model = spec.build(spec.weights()).eval()
transform = transforms.Compose(
    [
        transforms.Resize(256, transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize(spec.mean, spec.std),
    ]
)
for path in sys.argv[1:]:
    with torch.inference_mode():
        x = transform(Image.open(path).convert("RGB"))
        probabilities = model(x[None])[0].softmax(0)
    for p, i in zip(*probabilities.topk(5), strict=True):
        print(path, f"{p:.4f}", imagenet().categories[i], sep="\t")
