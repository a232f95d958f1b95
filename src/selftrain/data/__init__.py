"""Lists, checks and reads images and labels, computes their statistics, augments them, draws `streets`."""
