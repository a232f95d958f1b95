"""From a model and held-out labels to a calibrator: what makes its probabilities mean what they say."""

RELIABILITY_COLUMNS = ["split", "calibrated", "lower", "upper", "pixels", "accuracy", "confidence"]
CALIBRATION_COLUMNS = ["split", "calibrated", "ece", "nll", "accuracy", "pixels"]
"""Of the tables that tell what a calibrator is worth."""
