"""Progress of jobs that take longer than two seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# How often a log file gets a line; a terminal gets a moving bar instead.
LINE_SECONDS = 2.0


@contextmanager
def progress(task: str, total: int | None, unit: str = "") -> Iterator[Callable[[int], None]]:
    """Show the progress of a job: a bar on a terminal, otherwise a plain line every few seconds.

    Parameters
    ----------
    task : str
        Name of the job, for display.
    total : int or None
        Size of the whole job, in `unit`; None if it is not known.
    unit : str
        Unit of the counts; ``"bytes"`` is shown in decimal multiples.

    Yields
    ------
    callable
        Takes the amount of work done since the last call.
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
        # A file name may look like rich's markup.
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), count, TimeRemainingColumn())
        # Output that does not share the bar's console is printed into the bar; redirected output must stay redirected.
        on_stdout = sys.stdout.isatty()
        console = rich.get_console() if on_stdout else Console(stderr=True)
        with Progress(*columns, console=console, redirect_stdout=on_stdout) as bar:
            number = bar.add_task(task, total=total)
            yield lambda amount: bar.update(number, advance=amount)
        return

    done, started = 0, time.monotonic()
    last = started

    def advance(amount: int) -> None:
        nonlocal done, last
        done += amount
        now = time.monotonic()
        if now - last >= LINE_SECONDS:
            last = now
            of_total = f" of {total:,} ({done / total:.0%})" if total else ""
            print(f"{task}: {done:,}{of_total} {unit}, {now - started:.0f} s", file=sys.stderr, flush=True)

    yield advance
