"""From predictions and a cut to pseudo-labels."""
