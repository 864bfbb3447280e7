"""The child's end of a pair. It imports nothing that would weigh on what the child measures."""
import json
import os
import signal
import sys


def serve(commands, facts=None):
    """Be a worker: say what `facts` holds, then answer commands until stdin ends.

    Parameters
    ----------
    commands : dict of str to callable
        Called with the command's further words; each returns a dict that JSON can hold, with
        "seconds" where :func:`alternate` is to time it.
    facts : dict, optional
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)     # Ctrl-C reaches the parent, which ends us
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)                                    # a library's print must not look like JSON

    def answer(values):
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    answer({"ready": True, **(facts or {})})
    for line in sys.stdin:
        name, *arguments = line.split()
        answer(commands[name](*arguments))


def peak_memory():
    """Return the most bytes of memory that this process has held so far.

    Not getrusage's ru_maxrss, where there is a choice: there a process begins with the peak of the
    one that started it.
    """
    try:
        with open("/proc/self/status") as lines:
            return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except FileNotFoundError:                        # macOS, which counts in bytes
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
