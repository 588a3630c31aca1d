"""Standard output with colours and tables."""

from rich.console import Console


class OutputConsole(Console):
    """A console on standard output that leaves it to `main` what happens when its reader has gone."""

    def on_broken_pipe(self) -> None:
        """Raise the error again; rich itself would end the process with exit status 1."""
        raise BrokenPipeError
