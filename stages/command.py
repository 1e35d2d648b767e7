"""What every stage script shares: one log line, and clear errors instead of tracebacks."""

import errno
import sys
import time
from collections.abc import Callable


class VigilError(Exception):
    """Something that the user can mend. Says what was found, what was expected, and what to do."""


def command(main: Callable[..., str]) -> Callable[..., None]:
    """Turn `main`, which returns "what was read -> what was written", into a stage's entry point.

    Prints that line with the time it took. A `VigilError` ends the process with exit status 1 and its
    message, and so does a full disk; any other exception is a defect of ours and keeps its traceback.
    """
    script = sys.argv[0].removesuffix("/__main__.py").rsplit("/", 1)[-1].removesuffix(".py")
    name = main.__module__ if main.__module__ != "__main__" else script

    def run(*args, **kwargs) -> None:
        start = time.perf_counter()
        try:
            done = main(*args, **kwargs)
        except VigilError as error:
            sys.exit(f"{name}: {error}")
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            sys.exit(f"{name}: the disk is full: make room, then run the same command again; finished parts are kept")
        print(f"{name}: {done} in {time.perf_counter() - start:.1f} s", file=sys.stderr)

    return run
