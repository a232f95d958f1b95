"""Jobs that only predict do not import PyTorch's compiler, and who needs it later has it."""

import subprocess
import sys

import pytest
import torch

from selftrain import uncompiled

SCRIPT = """
import inspect, sys, torch
from selftrain import uncompiled

disable = torch.compiler.disable
uncompiled.import_networks()
uncompiled.import_networks()
import selftrain.predict.stage, selftrain.evaluate.stage, selftrain.preview.stage, selftrain.calibrate.stage
assert "timm" in sys.modules and "torchvision.ops" in sys.modules
assert not [name for name in sys.modules if name.startswith(("torch._dynamo", "sympy"))]
assert torch.compiler.disable is disable

from torchvision.ops.roi_align import is_compile_supported
said = is_compile_supported("cpu")
from torch._dynamo import utils
assert inspect.isfunction(utils.is_compile_supported) and said == utils.is_compile_supported("cpu")
uncompiled.import_networks()
assert sys.modules["torch._dynamo.utils"] is utils
"""


def test_what_predicts_imports_no_compiler():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_stands_for_a_module_leaves_when_it_is_used(monkeypatch):
    import colorsys

    monkeypatch.setitem(sys.modules, "colorsys", later := uncompiled._Later("colorsys"))
    assert not hasattr(later, "__file__") and sys.modules["colorsys"] is later
    assert later.rgb_to_hsv(0, 0, 0) == colorsys.rgb_to_hsv(0, 0, 0)
    assert sys.modules["colorsys"] is not later
    with pytest.raises(AttributeError):
        _ = later.no_such_name


def test_marks_for_the_compiler_leave_a_function_as_it_is():
    assert uncompiled._as_it_is(len) is len
    assert uncompiled._as_it_is(recursive=False)(len) is len
    assert torch.compiler.disable is not uncompiled._as_it_is
