"""Networks: encoders, decoders, and model files that hold all that predicting needs."""
