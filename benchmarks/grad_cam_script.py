"""The peer: a picture of Grad-CAM over each photo, as the package grad-cam teaches, of fcnconv's network.

python benchmarks/grad_cam_script.py FOLDER PHOTO …
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import show_cam_on_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torchvision import transforms

from fcnconv.labels import imagenet
from fcnconv.models import find_model

spec = find_model("efficientnet_lite0")
model = spec.build(spec.weights()).eval()
layer = [module for module in model.modules() if isinstance(module, nn.Conv2d)][-1]
transform = transforms.Compose(
    [
        transforms.Resize((224, 224), transforms.InterpolationMode.BICUBIC),
        transforms.ToTensor(),
        transforms.Normalize(spec.mean, spec.std),
    ]
)
folder, *paths = map(Path, sys.argv[1:])
with GradCAM(model=model, target_layers=[layer]) as cam:
    for path in paths:
        photo = Image.open(path).convert("RGB")
        x = transform(photo)[None]
        with torch.inference_mode():
            top = int(model(x)[0].argmax())
        plane = cam(input_tensor=x, targets=[ClassifierOutputTarget(top)])[0]
        whole = np.asarray(Image.fromarray(plane).resize(photo.size, Image.Resampling.BICUBIC)).clip(0, 1)
        picture = show_cam_on_image(np.float32(photo) / 255, whole, use_rgb=True)
        Image.fromarray(picture).save(folder / f"{path.stem}.png")
        print(path, imagenet().categories[top], sep="\t")
