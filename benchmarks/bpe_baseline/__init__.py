"""The equal fight: BLT against a plain Transformer on BPE and a flat byte Transformer, on the same bytes.

In order: `texts.py` (what is read and held out), `tokens.py` (BPE), `sides.py` (the three models and what they cost),
`training.py` (one run), `plan.py` (which runs, in which order), `queue.py` (runs them), `report.py` (the record).
`python -m benchmarks.bpe_baseline --help` tells the one command.
"""
