"""From a model and held-out labels to a calibrator: what makes its probabilities mean what they say."""
