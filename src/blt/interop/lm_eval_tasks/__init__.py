"""Task files for the lm-evaluation-harness (0.4): CUTE and probes made of a text's words, for any of its models.

    lm_eval --include_path FOLDER --tasks cute --metadata '{"cute": "CUTE/data"}' --model hf --model_args …

`FOLDER` is this folder. In tasks `cute_TASK` a model writes the answer, in `cute_TASK_choice` it chooses; `probe_TASK`
and `probe_TASK_choice` are made of the words of a text (`--metadata '{"text": "stories.txt"}'`). Groups: `cute`,
`cute_choice`, `probe`, `probe_choice`. `--metadata` may also hold `rows` of each task, `shots` and `seed`, which mean
what they mean to `blt probe`.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
"""For the harness's `--include_path`."""
