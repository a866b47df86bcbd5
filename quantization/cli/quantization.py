"""The command quantize: its input, checked, and the stages in their order; each can be the first of a resumed run."""

from __future__ import annotations

import copy
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from quantization.cli.options import QuantizeCommand
from quantization.cli.preparation import calibrate, prepare, sample_tensors, versions
from quantization.cli.resume import begin, inputs_of, own_checkpoints, plain_record, resume_hint
from quantization.data.dataset import open_dataset
from quantization.data.images import Loader
from quantization.data.substitutes import Substitutes
from quantization.data.tensors import LabelledImages, pick_device
from quantization.distributed import RANKS
from quantization.errors import NotWritten, UserError
from quantization.evaluation.coco import Metrics
from quantization.evaluation.network import fit_dataset, make_evaluator
from quantization.evaluation.summary import Summary
from quantization.memory import OutOfMemory, named_stage
from quantization.placement.policy import choose_placement
from quantization.qat.length import warn_if_short, with_steps
from quantization.qat.losses import TaskLoss
from quantization.qat.progress import Diverged
from quantization.qat.run import QatRun, missing_labels, task_loss
from quantization.qat.state import references_content, references_of, restore_generators
from quantization.quantize import initialize, insert_quantizers
from quantization.quantizers.switches import amax_tensors, have_quantizers, set_amax_tensors
from quantization.sensitivity.budget import Budget, Outcome
from quantization.signals import SIGNALS
from quantization.upstream import checkpoint
from quantization.upstream.model import class_count
from quantization.upstream.network import torch_network
from quantization.upstream.predictor import torch_predictor
from quantization.upstream.record import CheckpointRecord, read_record

LOG = logging.getLogger("quantization")


class Quantization:
    """The command quantize: its input, checked, and the stages in their order.

    Args:
        name: "yolov5" or "yolov7".
        options: of the command.
        hint: end of the message of an interrupted run; empty: how to resume quantize.

    Raises:
        UserError: something in the input has to change; nothing is written then.
    """

    def __init__(self, name: str, options: QuantizeCommand, hint: str = "") -> None:
        self.name, self.options = name, options
        self.hint = hint or resume_hint(name, options)
        if RANKS.many and options.max_drop is not None:
            raise UserError("--max-drop is for one process: start without torchrun")
        named = open_dataset(options.images.cocodir, options.images.data)  # before the checkpoint, which takes longer
        self.device = pick_device(options.run.device)
        RANKS.use(self.device)
        self.model, _ = checkpoint.load(options.weight, self.device, name, options.run.trust_weights)
        if have_quantizers(self.model):
            raise UserError(f"{options.weight} is quantized already: quantize starts from a float checkpoint")
        self.network = torch_network(name, self.model, options.weight, options.images)
        labels = options.qat is not None and options.training.task_weight != 0
        self.placement = choose_placement(self.model, options.placement)
        checked = fit_dataset(named, self.network, train=True, train_labels=labels, val=options.measures)
        self.dataset, evaluator = checked.dataset, None
        if options.qat is not None:
            training = with_steps(options.training, len(self.dataset.train), options.images.batch_size)
            warn_if_short(training)
            self.options = options = replace(options, training=training)
        if options.measures:
            evaluator = make_evaluator(options.images, self.network, self.dataset, checked.truth)
        self.evaluator = evaluator
        self.task = self._task(0 if checked.train is None else checked.train.labelled) if options.qat else None
        facts = {**versions(), "quantizer backend": initialize(options.run.backend)}
        self.state = RANKS.main_only(
            lambda: begin(options, inputs_of(options.weight, self.dataset, self.device, facts))
        )
        self.run_id = self.state.facts["run"]
        self.training: QatRun | None = None  # once it is done
        self.kept = own_checkpoints(options, self.state, name) if RANKS.main else None
        if self.evaluator is not None:
            self.evaluator.references.update(references_of(self.state.tensors))
        self.summary = Summary(
            options.summary, plain_record(options), versions(), self.run_id, self.state.facts.get("summary")
        )

    def _task(self, labelled: int) -> TaskLoss | None:
        options = self.options
        if not labelled and options.training.task_weight != 0:
            missing_labels(self.dataset.train[0], options.training.task_weight)
            return None
        return task_loss(self.name, self.model, options.training.task_weight, options.images.imgsz)

    def measure(self, model: nn.Module, label: str, quiet: bool = False) -> Metrics:
        """MAP of a model as it is."""
        assert self.evaluator is not None  # made for every option that measures
        with named_stage(f"evaluation ({label})", self.options.images.batch_size):
            return self.evaluator(torch_predictor(model), label, quiet)

    def _compare_with(self, name: str, metrics: Metrics, **facts: Any) -> None:
        """Give the differences to this model with all figures from now on, also in a run that is resumed with these facts."""
        assert self.evaluator is not None and metrics.samples is not None  # it has measured them
        self.evaluator.references[name] = metrics.samples
        self.state.keep({**facts, "summary": self.summary.content}, references_content(self.evaluator.references))

    def run(self) -> None:
        """The stages that are left.

        Raises:
            NotWritten: all is done, but a file is missing.
            UserError: something stops the run; nothing of it stays if nothing was finished.
        """
        options = self.options
        SIGNALS.hint = self.hint
        try:
            self._stages()
            self._finish()
        except UserError as error:
            SIGNALS.check()  # a library may have made an error of it
            if self.state.stage == "started" or isinstance(error, Diverged):
                self.state.remove()  # there is nothing to go on with
            elif isinstance(error, OutOfMemory):
                error.args = (
                    f"{error} and --restart, or go on with --resume where there is more memory; {options.ptq} stays",
                )
            else:
                error.args = (f"{error}{SIGNALS.hint}",)
            raise

    def _stages(self) -> None:
        options, figures = self.options, self.summary.content["figures"]
        torch.manual_seed(options.images.seed)
        if self.state.stage == "started":
            self.state.keep({})
            if (options.eval_origin or options.max_drop is not None) and "float" not in figures:
                metrics = self.measure(self.model, "float")
                self.summary.record("float", metrics)
                self._compare_with("float", metrics)
            with named_stage("preparation", options.images.batch_size):
                prepare(self.model, self.dataset, options.images, options.calibration)
            teacher = copy.deepcopy(self.model) if options.qat else None
            written = self.ptq((teacher or self.model).state_dict())
        else:
            teacher, written = self.rebuild()
        SIGNALS.check()
        if (options.eval_ptq or options.qat or options.max_drop is not None) and "start" not in self.state.facts:
            metrics = self.measure(self.model, "PTQ")
            self.summary.record("ptq", metrics)
            self._compare_with("ptq", metrics, start=metrics.content())
        if options.max_drop is not None and "max_drop" not in figures["ptq"]:
            outcome = self.hold_budget(self.model, options.ptq, "ptq", written)
            if outcome.left:  # QAT has to be better than the checkpoint that PTQ has written
                self._compare_with("ptq", outcome.metrics, start=outcome.metrics.content())
        if teacher is not None:
            self.qat(teacher, written)

    def _finish(self) -> None:
        """The summary says that the run is finished; its state goes."""
        if not RANKS.main:
            return
        gone = [file for file in (self.options.ptq, self.options.qat) if file is not None and not Path(file).is_file()]
        if gone:
            self.state.keep({})  # its file went too, and --resume writes the PTQ checkpoint from it
            if self.training is not None:
                self.training.write_best(last=True)
            raise NotWritten(f"the run is done, but {gone[0]} is gone")
        self.summary.finish()
        self.state.remove()

    def ptq(self, weights: dict[str, Tensor]) -> CheckpointRecord:
        """Calibrate and save.

        Args:
            weights: of the float model; no stage changes them.
        """
        options, model = self.options, self.model
        with named_stage("calibration", options.images.batch_size):
            report = calibrate(model, self.dataset, self.placement, options)
        written = CheckpointRecord(
            groups=report.groups,
            calib_method=options.calibration.method,
            backend=initialize(options.run.backend),
            versions=versions(),
            options=plain_record(options),
            amax=report.amax,
            placement={
                key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self.placement).items()
            },
            run=self.run_id,
        )
        if RANKS.main:
            checkpoint.save(options.ptq, model, written.content())
        LOG.info("PTQ checkpoint: %s", options.ptq)
        self.summary.add(**report.content(), backend=written.backend, placement=written.placement, stage="ptq")
        self.state.keep(
            {"stage": "ptq", "summary": self.summary.content, "record": written.content()},
            {"float": dict(weights), "amax": amax_tensors(model)},
        )
        return written

    def rebuild(self) -> tuple[nn.Module | None, CheckpointRecord]:
        """The models and the record as they were after PTQ, from the state."""
        options, state = self.options, self.state
        written = read_record(state.facts["record"], state.file)
        assert written is not None  # PTQ is done
        self.model.load_state_dict(state.tensors["float"])
        teacher = copy.deepcopy(self.model) if options.qat else None
        insert_quantizers(self.model, self.placement, options.placement.exporter)
        set_amax_tensors(self.model, state.tensors["amax"])
        if RANKS.main and not Path(options.ptq).exists():
            checkpoint.save(options.ptq, self.model, written.content())
            LOG.info("PTQ checkpoint: %s was gone, and is written again", options.ptq)
        restore_generators(state.tensors["random"])
        return teacher, written

    def qat(self, teacher: nn.Module, written: CheckpointRecord) -> None:
        """Train, save the best epoch."""
        options, images = self.options, self.options.images
        assert options.qat is not None
        substitutes = Substitutes(self.dataset.train)
        run = QatRun(
            options.training,
            options.qat,
            written,
            self.summary,
            lambda label: self._measure_epoch(label, substitutes),
            Metrics(**self.state.facts["start"]),
            self.state,
            self.kept,
        )
        loader = Loader(
            self.dataset.train,
            (images.imgsz, images.imgsz),
            images.batch_size,
            images.workers,
            shuffle_seed=images.seed,
            read_image=substitutes.read,
            part=(RANKS.rank, RANKS.size),
        )
        loader.passes, loader.skip = run.progress.data_position(options.training.steps, len(loader))
        batches = LabelledImages(loader, self.device, None if self.task is None else class_count(self.model))
        try:
            with named_stage("QAT", images.batch_size, training=True):
                run.train(self.model, teacher, batches, self.task)
            self.training = run
        finally:
            self.summary.list_failed(substitutes.failed)
        if options.training.fall_back_to_ptq and not run.verdict.better:
            self.fall_back(options.qat, run)
            self.training = None  # its epochs are not what --qat holds
        if options.max_drop is not None:
            self.hold_qat_budget(options.qat)

    def _measure_epoch(self, label: str, substitutes: Substitutes) -> Metrics:
        substitutes.share()
        self.summary.list_failed(substitutes.failed)
        return self.measure(self.model, label)

    def fall_back(self, file: str, run: QatRun) -> None:
        """Write PTQ's weights as the QAT checkpoint."""
        LOG.warning("WARNING: %s gets PTQ's weights, as --fall-back-to-ptq asks", file)
        if RANKS.main:
            model, content = checkpoint.load(self.options.ptq, self.device, self.name)
            found = read_record(content, self.options.ptq)
            assert found is not None  # ``ptq`` wrote it
            checkpoint.save(file, model, found.with_(history=run.history).content())
        self.summary.record("qat", run.start, epochs=run.history, epoch=0)
        run.draw()  # it said that an epoch was saved

    def hold_qat_budget(self, file: str) -> None:
        """What ``--max-drop`` asks for of the best epoch."""
        best, content = checkpoint.load(file, self.device, self.name)
        found = read_record(content, file)
        assert found is not None  # QatRun wrote it
        if found.max_drop is None:
            self.hold_budget(best, file, "qat", found)
        else:  # written before the run was interrupted
            metrics = self.measure(best, "QAT")
            self.summary.record("qat", metrics, max_drop=found.max_drop, epochs=found.history, epoch=found.epoch)

    def hold_budget(self, model: nn.Module, file: str, key: str, written: CheckpointRecord) -> Outcome:
        """What ``--max-drop`` asks for."""
        images = sample_tensors(self.dataset, self.options.images, self.device)
        assert self.options.max_drop is not None
        known = [Metrics(**self.state.facts["start"])] if key == "ptq" else []  # as it is, it has been measured

        def evaluate() -> Metrics:
            return known.pop() if known else self.measure(model, key.upper(), quiet=True)

        budget = Budget(self.options.max_drop, images, self.options.images.seed, self.summary)
        return budget.hold(model, file, key, written, evaluate)
