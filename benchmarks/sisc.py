"""SISC: patches in batches that stay on the device, against one patch a forward added up on the host (MLSL's order of
work, written from the paper). Prints seconds and CPU-seconds an image, their ratio, and the largest difference.

    python benchmarks/sisc.py [--encoder resnet18 --size 512 1024 --patch 256 512 --count 50 --memory 512 --images 3]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from selftrain import randomness
from selftrain.models.segmenter import Segmenter
from selftrain.predict.patches import coverage, mean_over_patches, place
from selftrain.settings.model import ModelSettings
from selftrain.settings.prediction import PatchSettings


def main() -> None:
    """Measure on the CPU, and on a GPU where there is one."""
    told = _arguments()
    torch.manual_seed(0)
    network = Segmenter(ModelSettings(encoder=told.encoder), told.classes).eval()
    print(f"{told.encoder}, {told.classes} classes, images {told.size}, {told.count} patches {told.patch}")
    for name in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        device = torch.device(name)
        described = torch.cuda.get_device_name() if name == "cuda" else f"cpu, {told.threads} thread(s)"
        torch.set_num_threads(told.threads)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        _compare(network.to(device), device, described, told)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--classes", type=int, default=19)
    parser.add_argument("--size", type=int, nargs=2, default=(512, 1024))
    parser.add_argument("--patch", type=int, nargs=2, default=(256, 512))
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--memory", type=int, default=PatchSettings.model_fields["memory"].default)
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def _compare(network: Segmenter, device: torch.device, described: str, told: argparse.Namespace) -> None:
    settings = PatchSettings(size=tuple(told.patch), count=told.count, memory=told.memory)
    images = torch.randint(0, 256, (told.images, 3, *told.size), dtype=torch.uint8).to(device)

    def probabilities(views: Tensor) -> Tensor:
        logits = F.interpolate(network(views), size=views.shape[-2:], mode="bilinear", align_corners=False)
        return logits.softmax(1)

    def ours(number: int) -> Tensor:
        draw = randomness.generator(number)
        return mean_over_patches(
            probabilities, images[number], settings, draw, classes=told.classes, fill=(128, 128, 128)
        )

    def one_by_one(number: int) -> np.ndarray:
        corners = place(tuple(told.size), settings.size, settings.count, randomness.generator(number))
        sums = np.zeros((told.classes, *told.size), np.float32)
        for top, left in corners:
            rows, columns = slice(top, top + told.patch[0]), slice(left, left + told.patch[1])
            sums[:, rows, columns] += probabilities(images[number : number + 1, :, rows, columns])[0].cpu().numpy()
        return sums / coverage(tuple(told.size), settings.size, corners)

    with torch.inference_mode():
        ours(0), one_by_one(0)  # warm
        batched, loop = _timed(ours, told.images, device), _timed(one_by_one, told.images, device)
        difference = max(
            float(np.abs(ours(number).cpu().numpy() - one_by_one(number)).max()) for number in range(told.images)
        )
    print(f"{described}, torch {torch.__version__}")
    print(f"  one patch at a time  {loop[0]:.3f} s, {loop[1]:.3f} CPU-s an image")
    print(f"  batches              {batched[0]:.3f} s, {batched[1]:.3f} CPU-s an image")
    print(f"  ratio                {loop[0] / batched[0]:.2f} (seconds), {loop[1] / batched[1]:.2f} (CPU-seconds)")
    print(f"  largest difference   {difference:.1e}")


def _timed(work: Callable[[int], object], images: int, device: torch.device) -> tuple[float, float]:
    """Seconds and CPU-seconds an image."""
    seconds, cpu = time.perf_counter(), time.process_time()
    for number in range(images):
        work(number)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - seconds) / images, (time.process_time() - cpu) / images


if __name__ == "__main__":
    main()
