"""A launcher, run as its own short program: start a command that is nobody's child.

`python -S -E detach.py LOG COMMAND [ARG...]` prints the pid of COMMAND and exits. COMMAND starts only after the
launcher is gone: Envoy asks the kernel to end it when the thread that started it ends (PR_SET_PDEATHSIG), so its
parent must be init from the first instant.
"""

import os
import sys
import time


def main() -> None:
    log_path, command = sys.argv[1], sys.argv[2:]
    launcher = os.getpid()
    child = os.fork()
    if child:
        sys.stdout.write(str(child))
        sys.stdout.flush()
        os._exit(0)
    os.setsid()
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    while os.getppid() == launcher:
        time.sleep(0.001)
    try:
        os.execv(command[0], command)
    except OSError as error:
        os.write(2, f"cannot start {command[0]}: {error}\n".encode())
        os._exit(127)


if __name__ == "__main__":
    main()
