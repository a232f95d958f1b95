import tiny
import torch

from selftrain.train.teacher import Teacher


def test_the_teacher_is_the_ramped_average():
    torch.manual_seed(0)
    student = tiny.network(3)
    teacher, slow = Teacher(student, 0.9), None
    for step in range(30):
        for tensor in student.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape) if tensor.is_floating_point() else tensor + 1)
        teacher.update(student, step)
        decay = min(1 - 1 / (step + 1), 0.9)
        now = {name: p.detach().double().clone() for name, p in student.named_parameters()}
        slow = {name: decay * slow[name] + (1 - decay) * p for name, p in now.items()} if slow else now
    for name, parameter in teacher.model.named_parameters():
        assert torch.allclose(parameter.double(), slow[name], atol=1e-5) and not parameter.requires_grad
    assert all(torch.equal(own, other) for own, other in zip(teacher.model.buffers(), student.buffers(), strict=True))
