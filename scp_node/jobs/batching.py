"""Questions of several threads, put together: as many at once as have come while the one before was answered."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from scp_node.jobs.child_errors import ChildCrashError, ChildFailedError, ChildTimeLimitError

log = structlog.get_logger(__name__)

Message = dict[str, Any]


@dataclass(slots=True, eq=False)
class _Waiting:
    question: Message
    answer: Message = field(default_factory=dict)
    error: BaseException | None = None
    is_done: bool = False
    is_alone: bool = False
    """It was in a batch that failed."""


class Batches:
    """Asks for one question at once when nothing else is being asked; what comes meanwhile is asked together next.

    Nobody waits for a batch to fill.

    Parameters
    ----------
    ask
        Answers questions, in their order. What it raises became of all of them; each is then asked alone, so that one
        which is the death of whoever answers costs no other one its answer.
    size
        Questions at a time at most.
    """

    def __init__(self, ask: Callable[[list[Message]], list[Message]], size: int) -> None:
        if size < 1:
            raise ValueError(f"batches of {size}; 1 at least")
        self._ask = ask
        self._size = size
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._is_asking = False

    def ask(self, question: Message) -> Message:
        """Have a question answered; blocks. Raises what asking for it alone raises."""
        own = _Waiting(question)
        with self._changed:
            self._waiting.append(own)
        while (batch := self._next(own)) is not None:
            try:
                self._answer(batch)
            finally:
                with self._changed:
                    self._is_asking = False
                    self._changed.notify_all()
        if own.error is not None:
            raise own.error
        return own.answer

    def _next(self, own: _Waiting) -> list[_Waiting] | None:
        """Wait until it is this thread's turn to ask; None: somebody has asked for it."""
        with self._changed:
            self._changed.wait_for(lambda: own.is_done or not self._is_asking)
            if own.is_done:
                return None
            self._is_asking = True
            batch = [self._waiting.popleft()]
            while not batch[0].is_alone and len(batch) < self._size and self._waiting:
                batch.append(self._waiting.popleft())
            return batch

    def _answer(self, batch: list[_Waiting]) -> None:
        try:
            answers = self._ask([one.question for one in batch])
            for one, answer in zip(batch, answers, strict=True):
                one.answer, one.is_done = answer, True
        except (ChildCrashError, ChildTimeLimitError, ChildFailedError) as error:
            if len(batch) == 1:
                batch[0].error, batch[0].is_done = error, True
                return
            log.warning("batch failed, each is asked for alone", size=len(batch), how=str(error))
            with self._changed:
                for one in reversed(batch):
                    one.is_alone = True
                    self._waiting.appendleft(one)
        except BaseException as error:
            # The process is being stopped, or this is a mistake: the others must not wait for ever.
            for one in batch:
                if not one.is_done:
                    one.error, one.is_done = error, True
        else:
            if len(batch) > 1:
                log.info("judged together", radiographs=len(batch))
