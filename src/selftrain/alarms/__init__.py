"""Alarms without labels: signs between two rounds that self-training goes wrong, and which of them to tell of."""
