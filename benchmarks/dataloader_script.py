"""The peer: many photos through torchvision's transforms and torch's DataLoader, 32 at a time."""

import sys

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from fcnconv.labels import imagenet
from fcnconv.models import find_model

spec = find_model("efficientnet_lite0")
transform = transforms.Compose(
    [
        transforms.Resize(256, transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize(spec.mean, spec.std),
    ]
)


class Photos(Dataset):
    """The photos named on the command line, each (3, 224, 224) with its path."""

    def __len__(self):
        return len(sys.argv) - 1

    def __getitem__(self, index):
        path = sys.argv[1 + index]
        return transform(Image.open(path).convert("RGB")), path


if __name__ == "__main__":
    model = spec.build(spec.weights()).eval()
    for x, paths in DataLoader(Photos(), batch_size=32, num_workers=2):
        with torch.inference_mode():
            values, indices = model(x).softmax(1).topk(5)
        for path, ps, ids in zip(paths, values, indices, strict=True):
            for p, i in zip(ps, ids, strict=True):
                print(path, f"{p:.4f}", imagenet().categories[i], sep="\t")
