"""From a model and images to a class and its confidence per pixel."""
