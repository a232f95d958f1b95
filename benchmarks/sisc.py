"""SISC: patches in batches that stay on the device, against one patch a forward added up on the host (MLSL's order of
work, written from the paper): `python benchmarks/sisc.py [--encoder resnet18 --size 512 1024 ... --quick]`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import numpy as np
import torch
from measures import NOT_MEASURED, Line, medians, show
from torch import Tensor
from torch.nn import functional as F

from selftrain import randomness
from selftrain.models.segmenter import Segmenter
from selftrain.predict.patches import bands_over_patches, coverage, place
from selftrain.settings.model import ModelSettings
from selftrain.settings.prediction import PatchSettings


def measure(arguments: Sequence[str]) -> list[Line]:
    told = _arguments(arguments)
    torch.manual_seed(0)
    torch.set_num_threads(told.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    network = Segmenter(ModelSettings(encoder=told.encoder), told.classes).eval()
    what = "{}, {} patches {}×{} of {}×{}".format(told.encoder, told.count, *told.patch, *told.size)
    on_cpu = _compare(network, torch.device("cpu"), told, f"SISC on CPU: {what}", "")
    on_gpu = [Line(f"SISC on GPU: {what}", NOT_MEASURED, "≥ 3")]
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        on_gpu = _compare(network.to("cuda"), torch.device("cuda"), told, f"SISC on {name}: {what}", "≥ 3")
    return [*on_cpu, *on_gpu]


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--classes", type=int, default=19)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 512))
    parser.add_argument("--patch", type=int, nargs=2, default=(128, 256))
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--memory", type=int, default=PatchSettings.model_fields["memory"].default)
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    told = parser.parse_args(arguments)
    if told.quick:
        told.size, told.patch, told.count, told.images = (48, 64), (32, 32), 4, 1
    return told


def _compare(
    network: Segmenter, device: torch.device, told: argparse.Namespace, what: str, to_reach: str
) -> list[Line]:
    settings = PatchSettings(size=tuple(told.patch), count=told.count, memory=told.memory)
    images = torch.randint(0, 256, (told.images, 3, *told.size), dtype=torch.uint8).to(device)

    def probabilities(views: Tensor) -> Tensor:
        logits = F.interpolate(network(views), size=views.shape[-2:], mode="bilinear", align_corners=False)
        return logits.softmax(1)

    def batches(number: int) -> Tensor:
        draw = randomness.generator(number)
        bands = bands_over_patches(
            probabilities, images[number], settings, draw, classes=told.classes, fill=(128, 128, 128)
        )
        return torch.cat(list(bands), 1)

    def one_by_one(number: int) -> np.ndarray:
        corners = place(tuple(told.size), settings.size, settings.count, randomness.generator(number))
        sums = np.zeros((told.classes, *told.size), np.float32)
        for top, left in corners:
            rows, columns = slice(top, top + told.patch[0]), slice(left, left + told.patch[1])
            sums[:, rows, columns] += probabilities(images[number : number + 1, :, rows, columns])[0].cpu().numpy()
        return sums / coverage(tuple(told.size), settings.size, corners)

    with torch.inference_mode():
        works = {
            "batches": lambda: [batches(number).cpu() for number in range(told.images)],
            "loop": lambda: [one_by_one(number) for number in range(told.images)],
        }
        # Taking a result to the host waits for the device, so wall time is what both took; a CPU tells its own.
        clock = time.process_time if device.type == "cpu" else time.perf_counter
        spent = medians(works, 1 if told.quick else 3, clock)
        difference = max(
            float(np.abs(batches(number).cpu().numpy() - one_by_one(number)).max()) for number in range(told.images)
        )
    unit = "CPU-s" if device.type == "cpu" else "s"
    own, loop = (spent[way] / told.images for way in ("batches", "loop"))
    against = f"one patch a forward: {loop:.2f} {unit}"
    return [
        Line(what, f"{own:.2f} {unit} an image", to_reach, against, f"{loop / own:.2f}"),
        Line("largest difference of a probability", f"{difference:.0e}", "≤ 1e-5"),
    ]


if __name__ == "__main__":
    show(measure(sys.argv[1:]))
