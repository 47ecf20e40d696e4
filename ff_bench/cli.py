"""The console script `ff-bench`: finds the command, prints errors as one line, returns the exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ff_bench.errors import UsageError
from ff_bench.interrupts import Farewell, promptly

OK, FAILED, USAGE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        argv: words after the program's name; None takes those of the process.

    Returns:
        0 done · 1 some videos failed, or the disk or the memory did · 2 the command line is wrong ·
        130 interrupted · 143 ended by SIGTERM.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    farewell = Farewell(f"ff-bench: interrupted; {_go_on(words)}")
    try:
        with promptly(farewell, is_guest=argv is not None):
            code = _dispatch(words)
    except KeyboardInterrupt:
        farewell.say()
        return farewell.code
    if farewell.is_due:  # some library has kept the interrupt for itself
        farewell.say()
        return farewell.code
    return code


def _dispatch(words: Sequence[str]) -> int:
    try:
        from ff_bench import commands

        return commands.dispatch(words)
    except UsageError as error:
        print(f"ff-bench: {error}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:  # the reader, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:  # of the disk: what belongs to one video is a row and does not come here
        what = f"{error.strerror}: {error.filename}" if error.strerror and error.filename else str(error)
        print(f"ff-bench: {' '.join(what.split())}; {_go_on(words)}", file=sys.stderr)
        return FAILED
    except MemoryError:
        print(f"ff-bench: the memory of this machine is used up; {_go_on(words)}", file=sys.stderr)
        return FAILED


def _go_on(words: Sequence[str]) -> str:
    return f"what is finished is safe, go on with the same command: {_again(words)}"


def _again(words: Sequence[str]) -> str:
    import shlex

    from ff_bench import masking

    return shlex.join(["ff-bench", *masking.words(words)])


if __name__ == "__main__":
    raise SystemExit(main())
