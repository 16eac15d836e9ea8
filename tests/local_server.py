"""Run a server of a test in a thread."""

import threading
from contextlib import contextmanager


@contextmanager
def running(server):
    """Serve until the end of the block; an answer that waits for server.proceed is then sent"""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.proceed.set()
    server.shutdown()
    thread.join()
    server.server_close()
