"""From histograms of confidence to a cut, one file per policy."""
