#!/usr/bin/env python3
"""Stops one thread of a process for some seconds, while the others run on: stall.py PID THREAD SECONDS

THREAD is the name of the thread as the kernel knows it. It is stopped as a debugger would (ptrace(2): SEIZE, INTERRUPT, DETACH).
"""

import ctypes
import os
import pathlib
import sys
import time

SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17
WALL = 0x40000000

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request, thread):
    if libc.ptrace(request, thread, None, None) == -1:
        sys.exit(f"ptrace({request:#x}, {thread}): {os.strerror(ctypes.get_errno())}")


def threads(pid):
    tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
    return {(task / "comm").read_text().strip(): int(task.name) for task in tasks}


def main(pid, name, seconds):
    found = threads(pid)
    if name not in found:
        sys.exit(f"no thread {name!r} among {sorted(found)}")
    thread = found[name]
    ptrace(SEIZE, thread)
    ptrace(INTERRUPT, thread)
    os.waitpid(thread, WALL)
    print("stopped", flush=True)
    time.sleep(seconds)
    ptrace(DETACH, thread)
    print("released", flush=True)


main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
