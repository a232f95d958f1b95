"""One loop for every kind of training; what differs is an algorithm."""
