"""Does importing a package change nothing in the process, and does fast.tune() change only the documented settings?"""

import os
import platform
import subprocess
import sys

import pytest
from pools import numpys_openblas

from numpy_gpt.fast import openblas
from numpy_gpt.fast.threads import cores

GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="tune() changes the settings of glibc alone")


def output(code, **variables):
    env = {name: value for name, value in os.environ.items() if name != openblas.TIMEOUT}
    run = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(run, capture_output=True, text=True, check=True, env=env | variables).stdout.split()


@pytest.mark.parametrize("package", ["numpy_gpt", "torch_gpt"])
def test_import_changes_no_variable_and_registers_no_hook_and_starts_no_thread(package):
    """Import third-party modules first, so that only the effects of the package itself are measured"""
    pytest.importorskip("torch" if package == "torch_gpt" else "numpy")
    code = f"""
import atexit, concurrent.futures.thread, ctypes, os, signal, sys, threading
import numpy, {"torch.utils.checkpoint" if package == "torch_gpt" else "numpy"}
changes = []
hooks = (atexit, "register"), (threading, "_register_atexit"), (os, "register_at_fork"), (signal, "signal")
for module, name in hooks:
    if hasattr(module, name):
        setattr(module, name, lambda *args, name=name, **options: changes.append((name, args)))
before = dict(os.environ), threading.enumerate(), numpy.geterr(), sys.getswitchinterval()
import {package}
assert (dict(os.environ), threading.enumerate(), numpy.geterr(), sys.getswitchinterval()) == before
print(changes)
"""
    assert output(code) == ["[]"]


def test_tune_is_available_after_importing_the_package():
    assert output("import numpy_gpt; print(numpy_gpt.fast.tune())") == ["None"]


@GLIBC
def test_tune_keeps_freed_memory():
    # Allocating a freed block again causes no page faults
    code = """
import resource
import numpy as np
import numpy_gpt
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(1 << 21, np.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
np.ones(1 << 21, np.float32)
before = faults()
numpy_gpt.fast.tune()
np.ones(1 << 21, np.float32)
print(before, faults())
"""
    before, after = map(int, output(code))
    assert before > 10 * (1 + after)


IDLE = """
import os, time
import numpy as np, numpy_gpt
def idle():
    a = np.ones((2000, 2000), np.float32)
    a @ a
    start = time.process_time()
    time.sleep(0.1)
    return time.process_time() - start
before = idle()
numpy_gpt.fast.tune()
print(before, idle(), "OPENBLAS_THREAD_TIMEOUT" in os.environ)
"""


def skip_unless_the_timeout_can_be_set():
    numpys_openblas()
    if not hasattr(openblas.library(), "openblas_read_env"):
        pytest.skip("this OpenBLAS doesn't export openblas_read_env")
    if cores() < 2:
        pytest.skip("an idle thread only spins on a second core")


def test_tune_lets_idle_openblas_threads_sleep():
    # Without tune, a thread spins for the whole tenth of a second after a matmul
    skip_unless_the_timeout_can_be_set()
    before, after, in_environment = output(IDLE, OPENBLAS_NUM_THREADS="2")
    assert float(after) < float(before) / 3
    assert in_environment == "False"


def test_tune_keeps_the_timeout_that_the_user_has_set():
    skip_unless_the_timeout_can_be_set()
    code = "import numpy_gpt; numpy_gpt.fast.tune(); print(numpy_gpt.fast.openblas.library().openblas_thread_timeout())"
    assert output(code, OPENBLAS_THREAD_TIMEOUT="24") == ["24"]
    assert output(code) == [str(openblas.SHORT)]


def test_second_call_of_tune_restarts_no_threads():
    skip_unless_the_timeout_can_be_set()
    code = """
import os, numpy as np, numpy_gpt
def threads():
    a = np.ones((2000, 2000), np.float32)
    a @ a
    return sorted(os.listdir("/proc/self/task"))
numpy_gpt.fast.tune()
before = threads()
numpy_gpt.fast.tune()
print(before == threads(), len(before))
"""
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("the system doesn't list a process's threads")
    assert output(code, OPENBLAS_NUM_THREADS="2") == ["True", "2"]
