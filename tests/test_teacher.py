import pytest
import tiny
import torch
from safetensors.torch import load_file

from selftrain.models.segmenter import Segmenter
from selftrain.settings.training import TeacherSettings
from selftrain.train.stage import train
from selftrain.train.teacher import Teacher

IMAGES = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def make(batch_norm="student", decay=0.9):
    """A student, its weights drawn, and its teacher."""
    torch.manual_seed(0)
    student = Segmenter(tiny.MODEL, 3).train()
    return student, Teacher(student, TeacherSettings(decay=decay, batch_norm=batch_norm))


def shake(student):
    """Weights and statistics as a step might leave them."""
    for tensor in student.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape) if tensor.is_floating_point() else tensor + 1)


def weights(model):
    return {name: p.detach().double().clone() for name, p in model.named_parameters()}


def buffers(model):
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("batch_norm", ["student", "own"])
def test_the_teacher_is_the_ramped_average(batch_norm):
    student, teacher = make(batch_norm)
    slow = None
    for step in range(30):
        shake(student)
        teacher.update(student, step)
        decay = min(1 - 1 / (step + 1), 0.9)
        now = weights(student)
        slow = {name: decay * slow[name] + (1 - decay) * p for name, p in now.items()} if slow else now
    for name, parameter in teacher.model.named_parameters():
        assert torch.allclose(parameter.double(), slow[name], atol=1e-5) and not parameter.requires_grad


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.99])
def test_of_a_student_that_rests_the_teacher_keeps_alpha_to_the_n(decay):
    student, teacher = make(decay=decay)
    shake(student)
    teacher.update(student, 0)
    before = weights(teacher.model)
    assert same(before, weights(student)), "the first step is the student's own"
    shake(student)
    after = weights(student)
    for count in range(1, 8):
        teacher.update(student, 1000 + count)
        for name, value in weights(teacher.model).items():
            expected = decay**count * before[name] + (1 - decay**count) * after[name]
            assert torch.allclose(value, expected, atol=1e-5)


def test_the_ramp_begins_as_the_plain_mean():
    """Up to step 1 / (1 - alpha), where the average begins to forget."""
    student, teacher = make(decay=0.9)
    seen = []
    for step in range(12):
        shake(student)
        seen.append(weights(student))
        teacher.update(student, step)
        means = {name: torch.stack([one[name] for one in seen]).mean(0) for name in seen[0]}
        near = [torch.allclose(value, means[name], atol=1e-5) for name, value in weights(teacher.model).items()]
        assert all(near) if step < 10 else not any(near)


def test_the_student_gives_its_statistics_and_keeps_its_weights():
    student, teacher = make("student")
    shake(student)
    own = weights(student)
    teacher.update(student, 5)
    assert same(buffers(teacher.model), buffers(student)) and same(weights(student), own)
    teacher(IMAGES)
    assert same(buffers(teacher.model), buffers(student)), "labeling moves no statistics"
    student(IMAGES)
    assert not same(buffers(teacher.model), buffers(student)), "they are a copy"


def test_a_teacher_with_statistics_of_its_own_runs_them_over_what_it_labels():
    student, teacher = make("own")
    teacher(IMAGES)
    before = buffers(teacher.model)
    shake(student)
    teacher.update(student, 5)
    assert same(buffers(teacher.model), before)
    teacher(IMAGES)
    moved = {name for name, buffer in teacher.model.named_buffers() if not torch.equal(buffer, before[name])}
    assert moved == {f"encoder.network.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    scaled = (IMAGES.float() / 255 - teacher.model.mean) / teacher.model.std
    expected = 0.9 * before["encoder.network.1.running_mean"] + 0.1 * teacher.model.encoder.network[0](scaled).mean(
        (0, 2, 3)
    )
    assert torch.allclose(teacher.model.encoder.network[1].running_mean, expected, atol=1e-5)


@pytest.mark.parametrize("batch_norm", ["student", "own"])
def test_statistics_are_of_the_batch_only_where_they_are_its_own(batch_norm):
    _, teacher = make(batch_norm)
    alone = teacher(IMAGES[:1])
    together = teacher(IMAGES)[:1]
    assert torch.allclose(alone, together, atol=1e-4) == (batch_norm == "student")


@pytest.mark.parametrize("batch_norm", ["student", "own"])
def test_it_labels_without_dropout_and_without_a_gradient(batch_norm):
    student, teacher = make(batch_norm)
    assert not torch.equal(student(IMAGES), student(IMAGES)), "the student drops"
    said = teacher(IMAGES)
    assert torch.equal(said, teacher(IMAGES)) and not said.requires_grad


@pytest.mark.parametrize("batch_norm", ["student", "own"])
def test_it_labels_at_the_precision_of_the_training(tmp_path, monkeypatch, batch_norm):
    labeled = tiny.split(tmp_path / "labeled")
    unlabeled = tiny.split(tmp_path / "unlabeled", seed=1, label_files=False)
    call, models, mixed = Teacher.__call__, {}, []

    def recording(self, images):
        mixed.append(torch.is_autocast_enabled(images.device.type))
        return call(self, images)

    monkeypatch.setattr(Teacher, "__call__", recording)
    for precision in ("32-true", "bf16-mixed"):
        told = tiny.stage(
            "mean_teacher_mixing", steps=4, teacher={"batch_norm": batch_norm}, evaluate="teacher", precision=precision
        )
        paths = tiny.outputs(tmp_path / precision, labeled, unlabeled=unlabeled)
        train(told, paths, tiny.NOW)
        models[precision] = load_file(paths.model)
    assert mixed == [False] * 4 + [True] * 4
    plain, other = models.values()
    assert all(tensor.dtype == other[name].dtype for name, tensor in plain.items())
    assert not same(plain, other)
    assert all(torch.allclose(tensor, other[name], atol=0.2, rtol=0.2) for name, tensor in plain.items())


@pytest.mark.parametrize("batch_norm", ["student", "own"])
def test_a_teacher_that_nobody_asks_has_the_students_statistics(tmp_path, batch_norm):
    """Else it would be saved with those it began with."""
    told = {"batch_norm": batch_norm, "decay": 0.5}
    paths = tiny.outputs(tmp_path / "run", tiny.split(tmp_path / "labeled"))
    train(tiny.stage(steps=5, teacher=told, evaluate="teacher"), paths, tiny.NOW)
    saved = load_file(paths.model)
    assert saved["encoder.network.1.running_mean"].any() and saved["encoder.network.1.num_batches_tracked"] == 5
