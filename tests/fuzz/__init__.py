"""Fuzzers: every reader of foreign files against files that nobody would write.

`python -m tests.fuzz --seconds 600` runs them all, for so long each. A fuzzer is one function in a file `fuzz_*.py`:

    @fuzzer(seeds=lambda: [b'{"text": "a"}'])
    def jsonl(data: bytes, folder: Path) -> None:
        (folder / "a.jsonl").write_bytes(data)
        for _ in read_documents(folder / "a.jsonl"): ...

It may end in peace, in a `BLTError` of one line, or in `SystemExit` with status 0 or 2. Any other exception, a signal,
more than 2 GiB of memory or an input that takes longer than 20 s is a failure: the smallest input found for it, and the
traceback, are put into `tests/fuzz/failures`. Inputs that once failed live on as seeds.
"""
