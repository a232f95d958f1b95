"""One file per decoder: from an encoder's maps to class logits.

A decoder is built from its settings, the channels of the two maps and the number of classes. Its `hidden` runs under
autocast; its `classify` runs in float32, so that confidence is not rounded.
"""
