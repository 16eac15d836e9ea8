"""Share work among threads of a pool. NumPy releases Python's global lock while it computes, so they run in parallel.

OpenBLAS has threads too, which share one matmul at a time. While the threads of this pool compute different matmuls,
each matmul stays on one thread: then everything between the matmuls runs in parallel as well.

ThreadPoolExecutor and threadpoolctl are as fast: both take 1.3 s for a training step of 4 x 64 tokens of the 124M, and
0.31 s for one of the storyteller. But a Ctrl-C inside submit can leave a lock of the executor held, so that the process
hangs. This happened in each of four runs of 3,000 interrupts at random moments. An error also keeps the arrays of the
failed item until the next garbage collection. threadpoolctl limits OpenBLAS to one thread permanently if two threads
limit it at overlapping times.
"""

import atexit
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache, partial
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

from .openblas import openblas


class Job:
    """Wrap a function for a worker: either a worker runs it, or the submitter cancels it

    A Ctrl-C can leave a job in the queue, but it never leaves a lock held that a worker needs.
    """

    def __init__(self, work: Callable[[], Any]):
        self.work: Callable[[], Any] | None = work
        self.errors: list[BaseException] = []
        self.taken, self.unfinished = Lock(), Lock()
        self.unfinished.acquire()

    def run(self) -> None:
        """Run the function unless the job is cancelled, and keep its error"""
        if not self.taken.acquire(blocking=False):
            return
        try:
            self.work()  # type: ignore[misc]
        except BaseException as e:
            self.errors.append(e)
        self.unfinished.release()

    def cancel(self) -> bool:
        """Return True if no worker has started the job; it then releases the function, but stays in the queue"""
        if not self.taken.acquire(blocking=False):
            return False
        self.work = None
        return True


class Threads:
    """Share work among workers, daemon threads that are started when they are first needed"""

    def __init__(self):
        self.blas = openblas()
        self.n = self.blas.get_num_threads() if self.blas else cores()  # as many as OpenBLAS would use
        self.jobs: SimpleQueue[Job | None] = SimpleQueue()
        self.workers: list[Thread] = []
        self.lock, self.blas_users, self.blas_threads = Lock(), 0, 0

    def map(self, f: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """Return [f(item), ...]; the caller and up to n - 1 workers each take the next item until none is left

        After an error no further item is taken. The error is raised once all threads have finished their item.
        """
        todo = deque(enumerate(items))
        done: list[Any] = [None] * len(todo)

        def work():
            try:
                while todo:
                    try:
                        i, item = todo.popleft()
                    except IndexError:  # another thread was faster
                        return
                    done[i] = f(item)
            except BaseException:
                todo.clear()
                raise

        jobs: list[Job] = []
        try:
            for _ in range(self.start_workers(min(self.n, len(todo)) - 1)):
                jobs.append(Job(partial(copy_context().run, work)))
                self.jobs.put(jobs[-1])
            work()
        finally:
            todo.clear()
            started = [job for job in jobs if not job.cancel()]
            for job in started:
                job.unfinished.acquire()
        for job in started:
            if job.errors:
                raise job.errors.pop()  # a kept error would keep its traceback, and the arrays of f in it
        return done

    def start_workers(self, wanted: int) -> int:
        """Start workers until there are `wanted`, and return how many of them exist

        The system can refuse to start a thread. Python refuses when the interpreter is about to exit.
        """
        with self.lock:
            while len(self.workers) < wanted:
                thread = Thread(target=run_jobs, args=(self.jobs,), daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    break
                self.workers.append(thread)
            return min(wanted, len(self.workers))

    def stop(self) -> None:
        """Wait for the workers at exit: OpenBLAS then frees its memory, so no thread may be inside a matmul"""
        self.jobs.put(None)
        for thread in self.workers:
            thread.join()

    @contextmanager
    def single_threaded_blas(self) -> Iterator[None]:
        """Limit OpenBLAS to one thread for each matmul, until the last thread has left this context

        The limit holds for the whole process. The number of threads changes the last bits of a matmul. So the results
        of another thread depend on whether this context is active. A Ctrl-C while two threads leave the context can
        make the limit permanent.
        """
        assert self.blas
        counted = False
        try:
            with self.lock:
                if not self.blas_users:
                    self.blas_threads = self.blas.get_num_threads()
                self.blas_users += 1
                counted = True
            self.blas.set_num_threads(1)
            yield
        finally:
            with self.lock:
                self.blas_users -= counted
                if counted and not self.blas_users:
                    self.blas.set_num_threads(self.blas_threads)


def run_jobs(jobs: SimpleQueue[Job | None]) -> None:
    """Run jobs until None comes, and pass the None on to the next worker"""
    while job := jobs.get():
        job.run()
        del job  # otherwise its results would be kept until the next job
    jobs.put(None)


def cores() -> int:
    """Return the number of cores that this process may use"""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


creating = Lock()


def shared() -> Threads:
    """Return the pool of this process; the first call creates it, and registers hooks for exit and fork

    A lock prevents a second pool: it could be created while the first one limits OpenBLAS to one thread, and would
    take one for OpenBLAS's number of threads.
    """
    register_fork_hook()  # before the lock is taken: a fork could copy it locked
    with creating:
        return pool()


@cache
def pool() -> Threads:
    created = Threads()
    atexit.register(created.stop)
    return created


@cache
def register_fork_hook() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forget)


def forget() -> None:
    """Drop the pool in a forked child, which has none of its threads, and lift its limit on OpenBLAS"""
    global creating
    if pool.cache_info().currsize and pool().blas_users:
        pool().blas.set_num_threads(pool().blas_threads)  # type: ignore[union-attr]
    pool.cache_clear()
    creating = Lock()  # another thread may have held it


def side_by_side(f: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Return [f(item), ...], computed in parallel, each matmul on one thread

    The last items are computed first, since the last tiles of attention take the longest.
    """
    threads = shared()
    if len(items) == 1 or not threads.blas:
        return [f(item) for item in items]
    with threads.single_threaded_blas():
        return threads.map(f, items[::-1])[::-1]
