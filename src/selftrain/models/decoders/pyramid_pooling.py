"""Pyramid pooling: global context beside each place."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftrain.errors import UserError
from selftrain.settings.model import PyramidPoolingSettings


class PyramidPooling(nn.Module):
    """The last map, and its averages over coarse grids, each thinned to a part of its channels; a 1×1 convolution
    classifies all of them together (strategic curriculum, section 4.2: four grids, a quarter of the channels each).

    With `channels` a 3×3 convolution to that width, normalized, comes before it, as PSPNet has it.
    """

    def __init__(self, settings: PyramidPoolingSettings, channels: tuple[int, int], classes: int) -> None:
        super().__init__()
        self.bins, thin = settings.bins, max(1, channels[1] // len(settings.bins))
        self.thinned = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels[1], thin, 1, bias=False), nn.BatchNorm2d(thin), nn.ReLU(inplace=True))
            for _ in self.bins
        )
        width = channels[1] + thin * len(self.bins)
        self.joined: nn.Module = nn.Identity()
        if settings.channels is not None:
            convolution = nn.Conv2d(width, settings.channels, 3, padding=1, bias=False)
            width = settings.channels
            self.joined = nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.dropout = nn.Dropout2d(settings.dropout)
        self.classifier = nn.Conv2d(width, classes, 1)

    def hidden(self, fine: Tensor, last: Tensor) -> Tensor:
        """(B, c, h, w) at the last map's size."""
        # Where several processes share a batch, norms of another type count all of it.
        alone = len(last) == 1 and type(self.thinned.get_submodule("0.1")) is nn.BatchNorm2d
        if self.training and alone and 1 in self.bins:
            raise UserError(
                "model.decoder: pyramid_pooling normalizes the mean of an image over the batch, and this one has a "
                "single image; raise train.batch_size, or leave 1 out of 'bins'"
            )
        pooled = [thin(grid_means(last, bins)) for bins, thin in zip(self.bins, self.thinned, strict=True)]
        size = last.shape[-2:]
        grown = [F.interpolate(grid, size=size, mode="bilinear", align_corners=False) for grid in pooled]
        return self.dropout(self.joined(torch.cat([last, *grown], 1)))

    def classify(self, hidden: Tensor) -> Tensor:
        """Logits (B, classes, h, w)."""
        return self.classifier(hidden)


def grid_means(maps: Tensor, bins: int) -> Tensor:
    """Means over a grid of `bins` by `bins` cells, (B, C, bins, bins) of (B, C, h, w).

    Adaptive average pooling, as two products, since torch's own has no deterministic gradient on CUDA.
    """
    rows, columns = (_cells(length, bins, maps.device) for length in maps.shape[-2:])
    with torch.autocast(maps.device.type, enabled=False):  # half precision rounds the shares
        return (rows @ maps.float() @ columns.T).to(maps.dtype)


def _cells(length: int, bins: int, device: torch.device) -> Tensor:
    """Which share each place of a line has in the mean of each cell, (bins, length); cells may overlap by a place."""
    place = torch.arange(length, device=device)
    cell = torch.arange(bins, device=device)[:, None]
    inside = (place >= cell * length // bins) & (place < -(-(cell + 1) * length // bins))
    return inside / inside.sum(1, keepdim=True)
