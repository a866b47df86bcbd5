"""Many processes on one job, as ``torchrun`` starts them: who does what, and how they agree. torch only where there are many.

Every process ("rank") runs the whole command. What costs time is shared out: batches of calibration and evaluation,
images of a training batch. Rank 0 decides what has to be decided once, writes all files, logs and shows bars.

    exchange(value)   every rank gives a value and gets all of them
    main_only(action) rank 0 acts, every rank gets its result
    total(tensor)     the sum of a tensor over the ranks, on its device

No rank waits for one that has failed: all ranks meet in ``exchange``, and in tensor operations only right after it. A rank
that fails gives its failure to the others in place of the value that they wait for, whichever that is, and all end with its
exit code.
"""

from __future__ import annotations

import datetime
import logging
import os
import sys
import threading
import traceback
from typing import Any, Callable, Iterable, Iterator, NoReturn, Sequence, TypeVar

from quantization.errors import UserError
from quantization.failures import Failure, PeerFailed, end_process, failure_of
from quantization.signals import SIGNALS, Stopped

LOG = logging.getLogger("quantization")
Result = TypeVar("Result")
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")  # what torchrun sets
TIMEOUT = datetime.timedelta(days=1)  # a dead process is noticed at once; rank 0 may compute alone for long
PATIENCE = 60.0  # seconds that a rank that fails waits for the others, which may be stuck on their GPUs


class Ranks:
    """The processes of this job.

    Attributes:
        rank: number of this one.
        size: how many there are; 1: not started by torchrun, or alone.
        local: number of this one on its host.
    """

    def __init__(self) -> None:
        found = [os.environ.get(name, "") for name in VARIABLES]
        many = all(found) and all(value.isdigit() for value in found[:3]) and int(found[1]) > 1
        self.rank, self.size, self.local = (int(value) for value in found[:3]) if many else (0, 1, 0)
        self._tensors: Any = None  # process group of the models' device
        self._started = False
        self._told = False  # whether all know of a failure

    @property
    def many(self) -> bool:
        """Whether there are others."""
        return self.size > 1

    @property
    def main(self) -> bool:
        """Whether this is rank 0, which decides, writes and logs."""
        return self.rank == 0

    def start(self) -> None:
        """Meet the others, on CPUs (gloo).

        Raises:
            UserError: they do not come.
        """
        import torch.distributed as dist

        if not self.many or self._started:
            return
        if not dist.is_available():
            raise UserError("this torch has no torch.distributed: start the script without torchrun")
        try:
            dist.init_process_group("gloo", timeout=TIMEOUT)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"torchrun: the processes do not find each other ({str(error).splitlines()[0]})") from error
        self._started = True

    def use(self, device: Any) -> None:
        """Say where tensors of ``total`` and the like lie: NCCL connects GPUs, gloo CPUs."""
        if not self.many:
            return
        import torch
        import torch.distributed as dist

        kinds = self.exchange(device.type)
        if len(set(kinds)) > 1:
            raise UserError(f"torchrun: the processes have different devices ({', '.join(kinds)}): give --device cpu")
        if device.type == "cuda" and self._tensors is None:
            torch.cuda.set_device(device)
            self._tensors = dist.new_group(backend="nccl")

    def exchange(self, value: Any = None) -> list[Any]:
        """The values of all ranks, by rank; small ones, since every rank gets all.

        Raises:
            PeerFailed: another rank gave its failure instead.
            Stopped: a signal has stopped another rank.
        """
        if not self.many:
            return [value]
        with SIGNALS.deferred():
            values = self._gather(value)
        failures = [(rank, found) for rank, found in enumerate(values) if isinstance(found, Failure)]
        if failures:
            self._told = True
            rank, failure = failures[0]
            if failure.signal:
                raise Stopped(failure.signal)
            raise PeerFailed(f"process {rank}: {failure.message}", failure.code)
        return values

    def _gather(self, value: Any) -> list[Any]:
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        try:
            dist.all_gather_object(values, value)
        except RuntimeError as error:
            self._told = True
            LOG.debug("%s", error)
            raise PeerFailed("another process has gone: what it printed, or torchrun's report, says why", 1) from error
        return values

    def main_only(self, action: Callable[[], Result]) -> Result:
        """What ``action`` gives on rank 0, where alone it is called; on the other ranks a copy."""
        if not self.many:
            return action()
        import torch.distributed as dist

        held: list[Any] = [action() if self.main else None]
        with SIGNALS.deferred():
            self.exchange()
            dist.broadcast_object_list(held, src=0)
        result: Result = held[0]
        return result

    def to_main(self, value: Result) -> list[Result]:
        """On rank 0 the values of all ranks, by rank; empty on the others."""
        if not self.many:
            return [value]
        import torch.distributed as dist

        values: list[Any] | None = [None] * self.size if self.main else None
        with SIGNALS.deferred():
            self.exchange()
            dist.gather_object(value, values, dst=0)
        return values or []

    def rounds(self, batches: Iterable[Result]) -> Iterator[tuple[Result | None, list[int]]]:
        """Go through this rank's batches, in step with the other ranks.

        Args:
            batches: of this rank: numbers ``rank``, ``rank + size`` ... of all; each has a length.

        Yields:
            A batch, or None where only lower ranks have one left; and the lengths of all ranks' batches of this round, in
            the order of the batches, 0 where there is none.
        """
        own = iter(batches)
        while True:
            batch: Any = next(own, None)
            lengths = self.exchange(0 if batch is None else len(batch))
            if not any(lengths):
                return
            yield batch, lengths

    def total(self, tensor: Any) -> Any:
        """The sum of a tensor over the ranks, in place.

        Call right after ``exchange``, or after another of these, in one ``SIGNALS.deferred()``: no rank may fail or stop
        between the two.
        """
        if self.many:
            import torch.distributed as dist

            dist.all_reduce(tensor, group=self._tensors)
        return tensor

    def largest(self, tensor: Any) -> Any:
        """The largest of each element over the ranks, in place. See ``total`` for when to call it."""
        if self.many:
            import torch.distributed as dist

            dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self._tensors)
        return tensor

    def gathered(self, tensor: Any) -> list[Any]:
        """The tensors of all ranks, of one shape and type. See ``total`` for when to call it."""
        if not self.many:
            return [tensor]
        import torch
        import torch.distributed as dist

        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor.contiguous(), group=self._tensors)
        return parts

    def same(self, tensors: Iterable[Any]) -> None:
        """Give all ranks rank 0's values of these tensors, in place. See ``total`` for when to call it."""
        if self.many:
            import torch.distributed as dist

            for tensor in tensors:
                whole = tensor.detach().contiguous()  # a view of channels-last weights is not, and NCCL wants it
                dist.broadcast(whole, 0, group=self._tensors)
                tensor.copy_(whole)

    def run(self, action: Callable[[], int]) -> int:
        """Carry out a command; the ranks but 0 are silent, and all end together.

        Raises:
            SystemExit: on a rank but 0, in place of an error that rank 0 prints.
        """
        if not self.many:
            return action()
        streams = sys.stdout, sys.stderr
        if not self.main:
            sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # until the process ends
        try:
            code = action()
            self.exchange()  # rank 0 is done with its files
            self._leave()
            return code
        except BaseException as error:
            if not self.main:
                sys.stdout, sys.stderr = streams
            self._fail(error)

    def _fail(self, error: BaseException) -> NoReturn:
        """Tell the others; then raise, or end silently what rank 0 says."""
        failure = failure_of(error)
        expected = isinstance(error, (UserError, Stopped, SystemExit))
        if not expected and not self.main:
            traceback.print_exception(type(error), error, error.__traceback__)
        if self._started and not self._told:
            patience = threading.Timer(PATIENCE, end_process, (self.rank, failure))
            patience.daemon = True
            patience.start()
            try:
                with SIGNALS.deferred():
                    self._gather(failure)
            except (PeerFailed, Stopped):
                pass  # they have gone already, or a signal came too
            patience.cancel()
        if self._tensors is None:  # NCCL's would wait for ranks that are stuck
            self._leave()
        if self.main:
            raise error
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # until the process ends
        raise SystemExit(failure.code)

    def _leave(self) -> None:
        if self._started:
            import torch.distributed as dist

            dist.destroy_process_group()
        self._started = False


def in_order(parts: Sequence[Sequence[Result]]) -> list[Result]:
    """Items that were dealt to the ranks in turn, in their order: item i of rank r was number i * ranks + r."""
    longest = max((len(part) for part in parts), default=0)
    return [part[index] for index in range(longest) for part in parts if index < len(part)]


RANKS = Ranks()
