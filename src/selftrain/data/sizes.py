"""The size at which an image is worked on."""

from selftrain.settings.data import Size, WorkingSize


def working_size(size: WorkingSize | None, own: Size) -> Size:
    """Height and width at which an image of the height and width `own` is worked on, for a split's `size`."""
    if size is None:
        return own
    return size if isinstance(size, tuple) else (size, max(1, round(own[1] * size / own[0])))
