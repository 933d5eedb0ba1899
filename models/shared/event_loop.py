"""One event loop for all requests of a model: many are under way at once, each gets exactly one answer.

`execute` of the next request does not start while an earlier one is being executed, even awaited. So
`execute` only hands requests over and returns; a coroutine for each answers through its response sender.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import triton_python_backend_utils as pb_utils
from background import give_way


class EventLoop:
    """An asyncio loop on a thread of its own; `workers` threads carry its tasks' blocking calls (BLS).

    workers_give_way: they leave the processors to others that want them.
    """

    def __init__(self, name: str, workers: int, *, workers_give_way: bool = False) -> None:
        self._loop = asyncio.new_event_loop()
        executor = ThreadPoolExecutor(workers, name, give_way if workers_give_way else None)
        self._loop.set_default_executor(executor)
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"{name}-loop")
        self._thread.start()

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine beside all others, unheeded."""
        asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def serve(self, request: Any, respond: Callable[[Any], Awaitable[Any]]) -> None:
        """Answers a request with what the coroutine `respond(request)` returns; it raises nothing."""
        self.start(_answer(request, request.get_response_sender(), respond))

    def close(self) -> None:
        """Ends what is still running; requests are answered by then."""
        asyncio.run_coroutine_threadsafe(_cancel_all_tasks(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


def respond_at_once(request: Any, response: Any) -> None:
    """Answers a request that never reaches the loop, from the thread of `execute`."""
    request.get_response_sender().send(
        response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
    )


async def _answer(request: Any, sender: Any, respond: Callable[[Any], Awaitable[Any]]) -> None:
    response = await respond(request)
    sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


async def _cancel_all_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
