"""The train stage: one loop for every kind of training."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader

from selftrain import artifacts, locks, memory, randomness, registry
from selftrain.data.batches import Batch, Batches, Stream, Unlabeled, unbatched
from selftrain.devices import leased_device
from selftrain.errors import UserError
from selftrain.label.pseudo_labels import PseudoLabels
from selftrain.manifest import manifest
from selftrain.models import files
from selftrain.models.auxiliary import auxiliary
from selftrain.models.segmenter import Segmenter
from selftrain.models.states import not_finite
from selftrain.progress import following
from selftrain.settings.config import MachineSettings
from selftrain.settings.training import OptimizerSettings, TrainStageSettings
from selftrain.train import examples, finished, processes
from selftrain.train.algorithms import Algorithm, Step, of_unlabeled
from selftrain.train.branches import branch_similarity
from selftrain.train.compiling import compile_networks, compiler_told
from selftrain.train.inputs import TrainFiles, counted, given
from selftrain.train.length import batch_sizes, length
from selftrain.train.resume import Resume, resumable
from selftrain.train.synchronized import synchronize
from selftrain.train.teacher import Teacher

log = logging.getLogger(__name__)

LOGGED_EVERY = 10
"""Steps that a row of train.csv averages over, and between which a checkpoint is possible."""


def train(
    settings: TrainStageSettings, paths: TrainFiles, machine: MachineSettings, code: str = "", *, count: int = 1
) -> None:
    """Train a model and write it, the table of its losses and its manifest.

    Args:
        settings: all that the result depends on beside the files.
        paths: inputs and outputs.
        machine: threads, workers, seconds between checkpoints.
        code: digest of the code, so that a changed method does not go on from another's checkpoint.
        count: of processes that each train on a part of every batch, with a GPU each where there are any.

    Raises:
        UserError: inputs that do not fit, or a loss that is not finite.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it, cuBLAS refuses to be deterministic
    digests = {name: artifacts.digest_file(path) for name, path in paths.inputs().items() if path is not None}
    key = artifacts.digest([settings.model_dump(mode="json"), code, digests])
    kept = None if paths.finished is None else paths.finished / key
    with resumable(paths.resume, key, machine.checkpoint_seconds) as resume:
        if kept is not None and finished.take(kept, paths.outputs()):
            log.info("finished already, by a run that was killed or for another experiment")
            return
        with leased_device(count):
            processes.launch(_train, count, settings.train.precision, settings, paths, machine, resume)
        if kept is not None:
            finished.keep(kept, paths.outputs())


@memory.telling(memory.IN_TRAINING)
def _train(
    fabric: Fabric, settings: TrainStageSettings, paths: TrainFiles, machine: MachineSettings, resume: Resume
) -> None:
    """What each process does."""
    torch.set_num_threads(machine.threads)
    torch.use_deterministic_algorithms(settings.train.deterministic)
    if not fabric.is_global_zero:
        logging.getLogger().setLevel(logging.ERROR)  # what the first process says is enough
    pseudo_labels = None if paths.pseudo_labels is None else PseudoLabels(paths.pseudo_labels)
    run = _Run(settings, paths, fabric, pseudo_labels)
    batches = _batches(settings, paths, run, pseudo_labels)
    run.go_on_from(resume.load())
    started = time.monotonic()
    waited = _steps(run, batches, resume, machine)
    if fabric.is_global_zero:
        _write(run, paths, machine, time.monotonic() - started, waited)


class _Run:
    """Everything that changes while training: weights, optimizer, teacher, and the rows written so far."""

    def __init__(
        self,
        settings: TrainStageSettings,
        paths: TrainFiles,
        fabric: Fabric,
        pseudo_labels: PseudoLabels | None,
    ) -> None:
        self.settings, self.fabric = settings, fabric
        train = settings.train
        self.place = (settings.seed, settings.round)
        self.classes = settings.labeled.classes
        build = registry.load(registry.ALGORITHMS, settings.algorithm.name)
        self.algorithm: Algorithm = build(settings.algorithm, given(settings, paths, pseudo_labels, fabric.device))
        # An online training starts as round 0 does; later rounds may bring new heads.
        first = settings.round if paths.pseudo_labels else 0
        torch.manual_seed(randomness.key(settings.seed, first, "initial weights"))
        self.segmenter = Segmenter(settings.model, len(self.classes), load_weights=paths.start is None)
        # The heads come last, so that nothing else has other initial weights for them.
        self.segmenter.heads.update(self.algorithm.heads(self.segmenter))
        self.segmenter.heads.update(auxiliary(self.segmenter, settings.model, len(self.classes)))
        if paths.start is not None:
            files.start_from(self.segmenter, paths.start)
        layout = torch.channels_last if train.channels_last else torch.contiguous_format
        self.segmenter = self.segmenter.to(memory_format=layout)
        if fabric.world_size > 1 and train.batch_norm == "synchronized":
            self.segmenter = synchronize(self.segmenter, fabric.device)
        # Fabric unscales the gradients of 16 bits before it clips them, which a fused optimizer does on its own.
        fused = train.precision != "16-mixed" or train.clip_gradient is None
        optimizer = _optimizer(self.segmenter, train.optimizer, fused=fused)
        self.model, self.optimizer = fabric.setup(self.segmenter, optimizer)
        _start_momentum(optimizer)
        self.teacher = None if train.teacher is None else Teacher(self.segmenter, train.teacher)
        if train.compile:
            compile_networks(self.segmenter, *([] if self.teacher is None else [self.teacher.model]))
        self.step, self.rows = 0, list[dict[str, float]]()
        self.steps = length(settings, counted(paths), self.algorithm)
        self.turns = self.algorithm.turns(self.steps)
        shows = of_unlabeled(self.turns)
        self.shown = set() if shows is None else examples.shown_steps(self.turns[shows])
        self.examples: dict[int, dict[str, Tensor]] = {}

    def advance(self, batches: dict[str, Batch]) -> dict[str, Tensor]:
        """One optimizer step; returns what train.csv tells of it: terms of the loss, facts, learning rate."""
        train = self.settings.train
        process = [processes.number()] if processes.count() > 1 else []
        torch.manual_seed(randomness.key(*self.place, "dropout", self.step, *process))
        rate = _set_learning_rate(self.optimizer, train.optimizer, self.step, self.steps)
        loss = self.algorithm.loss(Step(self.step, self.steps, batches, self.model, self._teach))
        alike = self._similarity()
        self.optimizer.zero_grad(set_to_none=True)
        penalties = [train.branch_similarity * cosine for cosine in alike.values()]
        self.fabric.backward(sum([*loss.terms.values(), *penalties], start=torch.zeros((), device=self.fabric.device)))
        if train.clip_gradient is not None:
            # What is not finite shows in the loss; looking for it here would make a GPU wait.
            most = train.clip_gradient
            self.fabric.clip_gradients(self.model, self.optimizer, max_norm=most, error_if_nonfinite=False)
        self.optimizer.step()
        if self.teacher is not None:
            self.teacher.update(self.segmenter, self.step)
        if train.batch_norm == "local":
            processes.average_running(self.segmenter, *([] if self.teacher is None else [self.teacher.model]))
        self.step += 1
        if self.step in self.shown:
            self.examples[self.step] = {name: picture.clone() for name, picture in loss.example.items()}
        told = {name: term.detach() for name, term in (loss.terms | alike).items()}
        return told | loss.facts | {"learning_rate": torch.full((), rate, device=self.fabric.device)}

    def _similarity(self) -> dict[str, Tensor]:
        """How alike the filters of the model's branches are, where there are several and it matters."""
        branches, weight = self.segmenter.branches, self.settings.train.branch_similarity
        return {"branch_similarity": branch_similarity(branches)} if len(branches) > 1 and weight > 0 else {}

    def _teach(self, images: Tensor) -> Tensor:
        """The teacher's logits, at the precision of the training."""
        if self.teacher is None:
            raise UserError(f"train.teacher: algorithm '{self.settings.algorithm.name}' learns from one; set it")
        with self.fabric.autocast():
            return self.teacher(images)

    def state(self) -> dict[str, Any]:
        """All that resuming needs; random draws need the step alone."""
        teacher = None if self.teacher is None else self.teacher.model.state_dict()
        return {
            "step": self.step,
            "rows": self.rows,
            "model": self.segmenter.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "teacher": teacher,
            "algorithm": self.algorithm.state,
            "examples": self.examples,
            "precision": self.fabric.strategy.precision.state_dict(),
        }

    def go_on_from(self, state: dict[str, Any] | None) -> None:
        """Take over a state saved earlier, if there is one."""
        if state is None:
            return
        self.step, self.rows = state["step"], state["rows"]
        self.segmenter.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        if self.teacher is not None:
            self.teacher.model.load_state_dict(state["teacher"])
        for name, tensor in self.algorithm.state.items():
            tensor.copy_(state["algorithm"][name])
        self.examples = state["examples"]

    def result(self) -> Segmenter:
        """The network that is saved: the student, or its teacher where that is asked for."""
        teacher = self.teacher is not None and self.settings.train.evaluate == "teacher"
        return self.teacher.model if teacher else self.segmenter  # type: ignore[union-attr,return-value]


def _steps(run: _Run, batches: Batches, resume: Resume, machine: MachineSettings) -> float:
    """The loop; returns how many seconds it waited for images.

    Losses are looked at once in a while, so that a GPU seldom waits for the look.
    """
    loader = _loader(batches, range(run.step, run.steps), machine.workers, run.fabric.device)
    run.model.train()
    unseen: list[_Step] = []
    started = time.monotonic()
    first = run.fabric.is_global_zero
    followed = following(
        f"train round {run.settings.round}",
        run.steps,
        unit="step",
        done=run.step,
        silent=not first,
        remedy="more machine.workers read images ahead",
    )
    with followed as progress, _readers_told():
        for loaded in progress.each(loader):
            if isinstance(loaded, UserError):
                raise loaded
            with compiler_told():
                terms = run.advance({name: batch.to(run.fabric.device) for name, batch in loaded.items()})
            unseen.append(_Step(run.step, terms, [name for batch in loaded.values() for name in batch.names]))
            if run.step % LOGGED_EVERY == 0 or run.step == run.steps:
                run.rows.append(_row(unseen, time.monotonic() - started))
                progress.tell(_told(run.rows[-1]))
                unseen, started = [], time.monotonic()
                if first and resume.is_due() and run.step < run.steps:
                    _refuse_ruined(run)
                    resume.save(run.state())
            progress.advance()
    return progress.waited


@contextmanager
def _readers_told() -> Iterator[None]:
    """That a process of the loader was ended, which torch tells by a RuntimeError wherever the loop is."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        told = str(error).splitlines()[0]
        raise UserError(
            f"a process that reads images was ended ({told}); out of memory? Lower machine.workers"
        ) from None


def _refuse_ruined(run: _Run) -> None:
    """Weights that are not finite end the training; the loss of a step is of the weights before it."""
    for network in (run.segmenter, run.result()):
        if broken := not_finite(network):
            raise UserError(f"step {run.step}: NaN or infinite weights in {broken}; lower the learning rate")


def _loader(batches: Batches, steps: range, workers: int, device: torch.device) -> DataLoader:
    return DataLoader(
        batches,
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        collate_fn=unbatched,  # type: ignore[arg-type]
        pin_memory=device.type == "cuda",
        worker_init_fn=locks.let_go,
    )


@dataclass(frozen=True)
class _Step:
    """A step that was taken but whose loss was not yet looked at."""

    number: int
    terms: dict[str, Tensor]
    images: list[str]


def _row(steps: list[_Step], seconds: float) -> dict[str, float]:
    """The means over some steps, a row of train.csv; the first loss that is not finite ends the training."""
    places = [(step, name) for step in steps for name in step.terms]
    # Moved to the host all at once.
    values: list[float] = processes.mean(torch.stack([step.terms[name].float() for step, name in places])).tolist()
    told: dict[str, list[float]] = {}  # a step need not have the terms of another
    for (step, name), value in zip(places, values, strict=True):
        if not math.isfinite(value):
            raise UserError(
                f"step {step.number}: the loss '{name}' is {value}; images: {', '.join(step.images)}. "
                "Lower the learning rate, set clip_gradient, or look at these images and labels"
            )
        told.setdefault(name, []).append(value)
    means = {name: sum(values) / len(values) for name, values in told.items()}
    images = sum(len(step.images) for step in steps) * processes.count()
    return {"step": steps[-1].number, **means, "images_per_second": round(images / max(seconds, 1e-9), 2)}


def _told(row: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in row.items() if name != "step")


def _optimizer(model: Segmenter, settings: OptimizerSettings, *, fused: bool = True) -> torch.optim.Optimizer:
    factors = {"encoder": 1.0, "decoder": settings.decoder_lr_factor}
    groups = [
        {"params": parameters, "lr": settings.lr * factors[part], "factor": factors[part]}
        for part, parameters in model.parts().items()
        if parameters
    ]
    if settings.name == "sgd":
        return torch.optim.SGD(groups, momentum=settings.momentum, weight_decay=settings.weight_decay, fused=fused)
    return torch.optim.AdamW(groups, weight_decay=settings.weight_decay, fused=fused)


def _start_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Let SGD's momentum be 0 before the first step, which makes that step what it would be anyway.

    Without it, fused SGD keeps what was in memory as momentum where the first step of 16-mixed overflows (torch 2.15).
    """
    for group in optimizer.param_groups:
        if group.get("momentum"):
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _set_learning_rate(optimizer: torch.optim.Optimizer, settings: OptimizerSettings, step: int, steps: int) -> float:
    """The polynomial schedule (thesis eq. 2.6); returns the encoder's rate."""
    rate = settings.lr * (1 - step / steps) ** settings.power
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    return rate


def _batches(settings: TrainStageSettings, paths: TrainFiles, run: _Run, pseudo_labels: PseudoLabels | None) -> Batches:
    algorithm = run.algorithm
    streams = {name: _stream(name, settings, paths, pseudo_labels) for name in algorithm.streams}
    sizes = batch_sizes(settings.train.batch_size, algorithm.streams)
    augmentation, mean = settings.train.augmentation, settings.model.mean
    part = (processes.number(), processes.count())
    one_size = algorithm.one_size
    return Batches(streams, sizes, augmentation, mean, run.place, run.turns, one_size=one_size, part=part)


def _stream(name: str, settings: TrainStageSettings, paths: TrainFiles, pseudo_labels: PseudoLabels | None) -> Stream:
    if name == "labeled":
        return Stream(paths.labeled, settings.labeled)
    table, read = paths.unlabeled, settings.unlabeled
    if name == "unlabeled" and table is not None and read is not None:
        return Unlabeled(table, read)
    if table is None or read is None or pseudo_labels is None:
        needed = "the unlabeled split" + (" and its pseudo-labels" if name != "unlabeled" else "")
        raise UserError(f"algorithm '{settings.algorithm.name}' needs {needed}")
    stream = Stream(table, read, pseudo_labels.label)
    if list(pseudo_labels.names) != stream.names:
        raise UserError(f"{paths.pseudo_labels}: its images are not those of {table}; make it again")
    return stream


def _write(run: _Run, paths: TrainFiles, machine: MachineSettings, seconds: float, waited: float) -> None:
    settings = run.settings
    _refuse_ruined(run)
    facts = {
        "device": str(run.fabric.device),
        "device_name": torch.cuda.get_device_name() if run.fabric.device.type == "cuda" else "cpu",
        "processes": processes.count(),
        "threads": machine.threads,
        "seconds": round(seconds, 1),
        "waited": round(waited, 1),
        "network": run.segmenter.describe(),
    }
    if paths.examples is not None:
        examples.write(paths.examples, run.examples, run.classes)
    artifacts.write_csv(paths.table, pd.DataFrame(run.rows, columns=None if run.rows else ["step"]))
    artifacts.write_json(paths.manifest, manifest(settings.model_dump(mode="json"), paths.inputs(), **facts))
    pixels = settings.labeled.pixels
    files.save(paths.model, run.result(), settings.model, run.classes, run.step, settings.colors, pixels)
