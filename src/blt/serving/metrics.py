"""What Prometheus reads at /metrics, in its text format (version 0.0.4)."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


@dataclass(frozen=True)
class Family:
    """A figure and its samples, as text."""

    name: str
    head: str
    """The lines that say what it means and of which kind it is."""
    samples: Sequence[str]
    """One line each."""


def text_of(families: Iterable[Family]) -> str:
    """Return what Prometheus reads; samples of one figure stand together, whoever measured them."""
    samples: dict[str, list[str]] = {}
    heads = {}
    for family in families:
        heads[family.name] = family.head
        samples.setdefault(family.name, []).extend(family.samples)
    return "".join(f"{line}\n" for name, head in heads.items() for line in (head, *samples[name]))


class Metric:
    """A figure with a name.

    Args:
        name: as Prometheus shows it.
        help: what it means.
    """

    kind = "gauge"

    def __init__(self, name: str, help: str) -> None:
        self.name, self.help = name, help
        self._lock = threading.Lock()
        self._values: dict[tuple[tuple[str, str], ...], float] = {}

    def set(self, value: int | float) -> None:
        """Set the figure."""
        with self._lock:
            self._values[()] = float(value)

    def add(self, value: int | float = 1, **labels: str) -> None:
        """Add to the figure of some labels."""
        with self._lock:
            key = tuple(sorted(labels.items()))
            self._values[key] = self._values.get(key, 0.0) + value

    def value(self, **labels: str) -> float:
        """Return the figure of some labels."""
        with self._lock:
            return self._values.get(tuple(sorted(labels.items())), 0.0)

    def family(self, **labels: str) -> Family:
        """Return its samples, each with further labels."""
        head = f"# HELP {self.name} {self.help}\n# TYPE {self.name} {self.kind}"
        return Family(self.name, head, self._samples(labels))

    def _samples(self, labels: dict[str, str]) -> Sequence[str]:
        with self._lock:
            values = self._values or {(): 0.0}
            return [f"{self.name}{_labels(labels | dict(key))} {_number(value)}" for key, value in values.items()]


class Counter(Metric):
    """A figure that only grows."""

    kind = "counter"


class Histogram(Metric):
    """How often a figure was at most so large."""

    kind = "histogram"

    def __init__(self, name: str, help: str) -> None:
        super().__init__(name, help)
        self._counts = [0] * (len(_SECONDS) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value in its bucket."""
        with self._lock:
            self._counts[sum(value > bound for bound in _SECONDS)] += 1
            self._sum += value

    def _samples(self, labels: dict[str, str]) -> Sequence[str]:
        with self._lock:
            counts, total = list(self._counts), self._sum
        lines, reached = [], 0
        for bound, count in zip([*map(str, _SECONDS), "+Inf"], counts, strict=True):
            reached += count
            lines.append(f"{self.name}_bucket{_labels(labels | {'le': bound})} {reached}")
        others = _labels(labels)
        return [*lines, f"{self.name}_sum{others} {_number(total)}", f"{self.name}_count{others} {reached}"]


class Metrics:
    """Everything that a server counts."""

    def __init__(self) -> None:
        self.requests = Counter("blt_requests_total", "Answers, by path and status.")
        self.disconnects = Counter("blt_disconnects_total", "Clients that went away before their answer was whole.")
        self.rejected = Counter("blt_rejected_total", "Requests refused since too many wait.")
        self.prompt_bytes = Counter("blt_prompt_bytes_total", "Bytes of prompts.")
        self.new_bytes = Counter("blt_new_bytes_total", "Bytes written.")
        self.rows = Metric("blt_rows_running", "Texts that are being written.")
        self.waiting = Metric("blt_rows_waiting", "Texts that wait for a row.")
        self.step_seconds = Histogram("blt_step_seconds", "Time of a step, in which every text gets a byte.")
        self.first_byte_seconds = Histogram("blt_first_byte_seconds", "Time from a request to its stream's first byte.")
        self.answer_seconds = Histogram("blt_answer_seconds", "Time from a request to the end of its answer.")

    def text(self) -> str:
        """Return all of it in Prometheus's format."""
        return text_of(self.families())

    def families(self, **labels: str) -> list[Family]:
        """Return all of it, each sample with further labels."""
        every: Mapping[str, Metric] = vars(self)
        return [metric.family(**labels) for metric in every.values()]


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}" if labels else ""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
