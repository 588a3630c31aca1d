"""Write by static steps that `torch.compile` has compiled, beside ordinary ones, and count graphs and recompilations.

    python tests/laws/compiled_steps.py --backend inductor --device cpu

Prints one JSON object; fails where a step after the first `WARM_UP` is compiled again. It is a program of its own,
since the compiler cannot look into functions whose shapes are checked, as they are within pytest.
"""

import json
from typing import Any

import click
import torch
from tiny_models import tiny_lm
from torch._dynamo.utils import counters

from blt.codec import EOS_ID
from blt.generation import Engine, GenerationConfig, Request
from blt.lm import StaticConfig

WARM_UP = 20
"""Steps within which everything has been compiled."""
PROMPTS = (b"Tom had a red ball.", "Zoë ate".encode())


def written(engine: Engine, *, num_bytes: int, compiles: bool) -> list[str]:
    """Continue two prompts, of which the second joins in the midst of the first; return what was written, as hex."""
    config = {"max_new_bytes": num_bytes, "temperature": 1.0, "valid_utf8": False, "logit_bias": {EOS_ID: -100.0}}
    requests = [Request(prompt, GenerationConfig(**config, seed=seed)) for seed, prompt in enumerate(PROMPTS)]
    engine.add(requests[:1])
    waiting = requests[1:]
    while engine.step():
        num_written = len(requests[0].new_bytes)
        torch._dynamo.config.error_on_recompile = compiles and num_written >= WARM_UP
        if waiting and num_written >= num_bytes // 4:
            engine.add([waiting.pop()])
    torch._dynamo.config.error_on_recompile = False
    return [bytes(request.new_bytes).hex() for request in requests]


@click.command()
@click.option("--backend", default="inductor", show_default=True, help="Of torch.compile.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--bytes", "num_bytes", default=200, show_default=True, help="To write after each prompt, at least 40.")
@click.option("--skip-global", "skips", type=click.Choice(["yes", "no", "both"]), default="both", show_default=True)
def main(backend: str, device: str, num_bytes: int, skips: str) -> None:
    """Write twice in every way, and print what was written and compiled."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    lm = tiny_lm("entropy", shape="one-query")
    found["expected"] = written(Engine(lm), num_bytes=num_bytes, compiles=False)
    lm.to(device)
    for skips_global in {"yes": [True], "no": [False], "both": [False, True]}[skips]:
        torch._dynamo.reset()
        counters.clear()
        config = StaticConfig(num_rows=2, max_patches=512, backend=backend, skips_global=skips_global)
        found["skipping" if skips_global else "always"] = {
            "written": written(Engine(lm, static=config), num_bytes=num_bytes, compiles=True),
            "graphs": counters["stats"]["unique_graphs"],
            "breaks": len(counters["graph_break"]),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
