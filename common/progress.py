"""Progress of what takes longer than two seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# How often a log file gets a line; a terminal gets a moving bar instead.
LINE_SECONDS = 2.0


@contextmanager
def progress(what: str, total: int | None, unit: str = "") -> Iterator[Callable[[int], None]]:
    """Show how far a job is: a bar on a terminal, a plain line now and then elsewhere.

    Parameters
    ----------
    what : str
        Name of the job, as the user reads it.
    total : int or None
        Size of the whole job, in `unit`; None when it is not known beforehand.
    unit : str
        What is counted; ``"bytes"`` is shown in decimal multiples.

    Yields
    ------
    callable
        Call it with the amount that has been done since the last call.
    """
    if sys.stderr.isatty():
        import rich
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        count = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
        # A file's name may look like rich's markup.
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), count, TimeRemainingColumn())
        # Only what is printed on the bar's own console, or sent there by rich, does not run into the bar; and what goes
        # to a file or another program must go there.
        on_stdout = sys.stdout.isatty()
        console = rich.get_console() if on_stdout else Console(stderr=True)
        with Progress(*columns, console=console, redirect_stdout=on_stdout) as bar:
            task = bar.add_task(what, total=total)
            yield lambda amount: bar.update(task, advance=amount)
        return

    done, started = 0, time.monotonic()
    last = started

    def advance(amount: int) -> None:
        nonlocal done, last
        done += amount
        now = time.monotonic()
        if now - last >= LINE_SECONDS:
            last = now
            share = f" of {total:,} ({done / total:.0%})" if total else ""
            print(f"{what}: {done:,}{share} {unit}, {now - started:.0f} s", file=sys.stderr, flush=True)

    yield advance
