"""From a model and labels to a confusion matrix and scores."""
