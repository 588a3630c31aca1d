"""What a server allows."""

from dataclasses import dataclass, field

from blt.configuration import check


@dataclass(frozen=True, kw_only=True)
class ServingConfig:
    """What a server allows, and what it calls its model."""

    model_name: str = "blt"
    """Name of the model in answers; a request may leave it out, but may not name another."""
    api_key: str | None = field(default=None, repr=False)
    """What every request but /health must bring, as a bearer token or as the password of HTTP's basic scheme."""
    allowed_hosts: tuple[str, ...] | None = None
    """Names that the Host header may have, so that no page of another site reaches this server by a name of its own;
    None allows any."""
    max_rows: int = 32
    """Texts that are continued at once; a request with several prompts or choices takes several."""
    max_waiting: int = 256
    """Texts that may wait for a row; further requests are refused with 429."""
    max_prompt_bytes: int = 65536
    """Longest prompt."""
    max_new_bytes: int = 4096
    """Largest max_tokens, in bytes."""
    max_read_bytes: int = 16000
    """Longest text whose own bytes are scored (`echo` with `logprobs`, the page): it is read in one pass, during which
    nothing else is."""
    max_body_bytes: int = 4194304
    """Largest body of a request."""
    max_seconds: int = 600
    """Longest time from a request to the end of its answer."""
    prompt_bytes_per_step: int = 512
    """Bytes of prompts that are read between two bytes of the texts that are being written."""
    stream_interval_ms: int = 40
    """Least time between two pieces of a stream; bytes that are written meanwhile come in one piece. It grows where
    more than 8 texts are written at once."""

    static: bool = False
    """Write by compiled steps of fixed shapes, with `max_rows` rows; compiled before the first request."""

    def __post_init__(self) -> None:
        check(bool(self.model_name.strip()), f"model_name: {self.model_name!r} is empty; give a name")
        check(self.api_key is None or bool(self.api_key.strip()), "api_key: it is empty; give a key, or none at all")
        is_ascii = self.api_key is None or self.api_key.isascii()
        check(is_ascii, "api_key: holds characters that no HTTP header can carry; use letters and digits")
        for name in ("max_rows", "max_prompt_bytes", "max_new_bytes", "max_read_bytes", "max_seconds"):
            check(getattr(self, name) >= 1, f"{name}: at least 1, got {getattr(self, name)}")
        for name in ("max_waiting", "stream_interval_ms"):
            check(getattr(self, name) >= 0, f"{name}: at least 0, got {getattr(self, name)}")
        check(self.max_body_bytes >= 1024, f"max_body_bytes: at least 1024, got {self.max_body_bytes}")
        check(self.prompt_bytes_per_step >= 1, f"prompt_bytes_per_step: at least 1, got {self.prompt_bytes_per_step}")
