"""Python runs this as it starts, in a project that runs under the Slurm of the tests.

The GPUs that it gives are none: their names are kept for paced.py, and from torch, which would be asked for what is not
there.
"""

import os

if "CUDA_VISIBLE_DEVICES" in os.environ:
    os.environ["GIVEN_DEVICES"] = os.environ.pop("CUDA_VISIBLE_DEVICES")
