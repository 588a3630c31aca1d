"""Standard output with colours and tables, and progress on standard error."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from blt.progress import OnProgress


class OutputConsole(Console):
    """A console on standard output that leaves it to `main` what happens when its reader has gone."""

    def on_broken_pipe(self) -> None:
        """Raise the error again; rich itself would end the process with exit status 1."""
        raise BrokenPipeError


@contextmanager
def progress_bar(description: str) -> Iterator[OnProgress]:
    """Show how much of something is done, on standard error, if that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:  # a bar that is only disabled ends with an empty line in older versions of rich
        yield lambda *_: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(description, total=None)

        def report(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield report
