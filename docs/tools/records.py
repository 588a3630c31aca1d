"""Figures and tables of the documentation, read from `benchmarks/records`; no figure is written by hand.

A page says `{{ figure NAME | path/of/keys | format }}` for one figure, and `{{ table TITLE }}` for a table.
"""

import functools
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import fight

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "benchmarks" / "records"

_FIGURE = re.compile(r"\{\{ figure ([\w-]+) \| ([^|}]+) \| ([^|}]+) \}\}")
_TABLE = re.compile(r"\{\{ table ([\w-]+) \}\}")


def load(name: str) -> dict[str, Any]:
    """Return a record by its name."""
    record: dict[str, Any] = json.loads((RECORDS / f"{name}.json").read_text(encoding="utf-8"))
    return record


def value(name: str, path: str) -> Any:
    """Return one value of a record; `path` holds its keys, or indices of lists, divided by slashes."""
    found: Any = load(name)
    for key in path.split("/"):
        found = found[int(key)] if isinstance(found, list) else found[key]
    return found


def figure(name: str, path: str, form: str) -> str:
    """Return one value of a record as text, in one of Python's formats such as `.4f` or `,.0f`."""
    return format(value(name, path), form)


def fill(text: str, *, link: Callable[[str], str]) -> str:
    """Replace every figure and table that a page asks for.

    Args:
        text: of the page, Markdown.
        link: address of a record by its name, as seen from the page.
    """
    text = _FIGURE.sub(lambda match: figure(match[1], match[2].strip(), match[3].strip()), text)
    return _TABLE.sub(lambda match: TABLES[match[1]](link), text)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def bundled(link: Callable[[str], str]) -> str:
    """Bits per byte of the bundled model."""
    rows = [
        [
            each["text"],
            f"`{each['protocol']}`",
            f"{each['bits_per_byte']:.4f}",
            f"{each['interval_low']:.4f} to {each['interval_high']:.4f}",
        ]
        for each in load("bundled-model")["figures"]
        if each["text"] in ("tinystories-v2-valid", "tinystories-valid")
    ]
    return _with_source(["text", "protocol", "bits per byte", "95% interval"], rows, ["bundled-model"], link)


def _writing() -> dict[str, float]:
    """Bytes per second by side. What new weights write has patches of any length, so ours is of the sample text."""
    results = load("decoding-cpu")["results"]
    sample = results["on the sample text"]
    ours = {
        f"blt {kind}": sample[f"{kind}, batch 1, after 17"]["bytes_per_second"] for kind in ("fp32", "bf16", "int8")
    }
    return results["bytes_per_second"] | ours


def decoding(link: Callable[[str], str]) -> str:
    """Bytes per second of writing, beside transformers."""
    speeds = _writing()
    rows = [
        [words, *("" if speeds.get(name) is None else _speed(speeds[name]) for name in names)]
        for words, *names in (
            ("float32", "blt fp32", "transformers BLT, no cache, fp32", "transformers Llama, cache, fp32"),
            ("bfloat16 weights", "blt bf16", None, "transformers Llama, cache, bf16"),
            ("int8 weights", "blt int8", None, None),
        )
    ]
    header = ["generate 256 bytes", "blt", "transformers' BLT, no cache", "Llama of equal size, KV cache"]
    return _with_source(header, rows, ["decoding-cpu"], link)


def llama_cpp(link: Callable[[str], str], *, record: str = "llama-cpp-cpu") -> str:
    """Bytes per second of the native decoder, beside llama.cpp on a Llama of equal size."""
    speeds = load(record)["results"]
    rows = []
    for ours, theirs in (("float32", "f32"), ("bfloat16", "bf16"), ("int8", "q8_0"), ("int4", "q4_0")):
        for what, name in (("generate", "write"), ("read a prompt", "prompt")):
            patches = " at 4.4 bytes per patch" if name == "write" else ""
            pair = [f"{name}, {ours}, {side}" for side in (f"blt tinystories-55m{patches}", f"llama.cpp {theirs}")]
            blt, peer = (speeds[each]["median"] for each in pair)
            rows.append([f"{what}, {ours} / {theirs}", _speed(blt), _speed(peer), f"{blt / peer:.2f}×"])
    header = ["bytes per second", "blt", "llama.cpp, Llama of equal size", "ratio"]
    return _with_source(header, rows, [record], link)


def serving(link: Callable[[str], str]) -> str:
    """`blt serve` by the number of clients, beside the engine alone and llama.cpp's server."""
    results = load("serving-cpu")["results"]
    rows = []
    for count, found in results["load"].items():
        cells = [_speed(found["bytes_per_second"]), _speed(found["engine_alone"]), f"{found['share_of_engine']:.0%}"]
        peer = results["llama.cpp"][count]
        cells += [f"{found[f'first_byte_{share}_ms']:,.0f}" for share in ("p50", "p99")]
        cells += [
            _speed(peer["bytes_per_second"]),
            *(f"{peer[f'first_byte_{part}_ms']:,.0f}" for part in ("p50", "p99")),
        ]
        rows.append([count, *cells])
    header = ["clients", "bytes/s in all", "engine alone", "share", "first byte, ms: median", "99 %"]
    header += ["llama.cpp's server: bytes/s", "first byte, ms: median", "99 %"]
    return _with_source(header, rows, ["serving-cpu"], link)


def training(link: Callable[[str], str]) -> str:
    """Bytes per second of training, beside transformers."""
    rows = []
    for name, machine in (("training-cpu", "AMD EPYC"), ("training-amx", "Intel Xeon with AMX")):
        results = load(name)["results"]
        for kind, words in (("fp32", "float32"), ("bf16", "bfloat16 matmuls")):
            speeds = [results[f"{whose} {kind}"]["bytes_per_second"] for whose in ("blt", "transformers")]
            ours, theirs = (results[f"{whose} {kind}"]["peak_bytes"] / 1e9 for whose in ("blt", "transformers"))
            ratio, memory = f"{results['ratio ' + kind]:.2f}×", f"{ours:.2f} / {theirs:.2f} GB"
            rows.append([f"{machine}, {words}", *map(_speed, speeds), ratio, memory])
    header = ["train on 8 × 512 bytes", "blt", "transformers' BLT", "speed-up", "peak memory, blt / transformers"]
    return _with_source(header, rows, ["training-cpu", "training-amx"], link)


def speed(link: Callable[[str], str]) -> str:
    """The README's table: generation and training, beside transformers."""
    writing = _writing()
    trained = {name: each["bytes_per_second"] for name, each in _trained().items()}
    llama = "transformers Llama, cache"
    rows: list[tuple[str, float | None, float | None, float | None]] = [
        (
            "generate, float32",
            writing["blt fp32"],
            writing["transformers BLT, no cache, fp32"],
            writing[f"{llama}, fp32"],
        ),
        ("generate, bfloat16", writing["blt bf16"], None, writing[f"{llama}, bf16"]),
        ("generate, int8", writing["blt int8"], None, None),
        ("train, float32", trained["blt fp32"], trained["transformers fp32"], None),
        ("train, bfloat16", trained["blt bf16"], trained["transformers bf16"], None),
    ]
    shown = [[name, *("" if each is None else _speed(each) for each in speeds)] for name, *speeds in rows]
    return markdown(["bytes per second", "blt", "transformers' BLT", "transformers' Llama, equal size"], shown)


def threshold(link: Callable[[str], str]) -> str:
    """Speed against bits per byte, by threshold and by type of the weights."""
    rows = [
        [name, f"{each['mean_patch_bytes']:.2f}", f"{each['bits_per_byte']:.4f}", _speed(each["bytes_per_second"])]
        for name, each in load("choosing-compute-cpu")["results"]["by_side"].items()
    ]
    header = ["weights or threshold", "bytes per patch", "bits per byte", "bytes per second"]
    return _with_source(header, rows, ["choosing-compute-cpu"], link)


def drafting(link: Callable[[str], str]) -> str:
    """What speculative decoding brings."""
    rows = [
        [
            name,
            f"{each.get('bytes_per_pass', 1):.2f}",
            _speed(each["bytes_per_second"]),
            f"{each.get('speed_up', 1):.2f}×",
        ]
        for name, each in load("choosing-compute-cpu")["results"]["drafting"].items()
    ]
    return _with_source(
        ["drafting", "bytes per pass", "bytes per second", "speed-up"], rows, ["choosing-compute-cpu"], link
    )


def quantised(link: Callable[[str], str]) -> str:
    """What each type of weights costs, with the entropy model as it is and in the same type."""
    results = load("quantised")["results"]
    rows = [
        [
            name,
            f"{each['bits_per_byte']:.4f}",
            f"{each['more_than_float32']:+.4f}",
            f"{each['patch_ends_that_change']:.1%}",
        ]
        for name, each in results.items()
        if isinstance(each, dict)
    ]
    header = [
        "weights of the BLT, of the entropy model",
        "bits per byte",
        "more than float32",
        "patch ends that change",
    ]
    return _with_source(header, rows, ["quantised"], link)


def long_texts(link: Callable[[str], str]) -> str:
    """What a byte costs far into a text."""
    results = load("long-texts-cpu")["results"]
    rows = [
        [
            dtype,
            f"{each['microseconds_near']:,.0f}",
            f"{each['microseconds_far']:,.0f}",
            f"{each['ratio']:.2f}×",
            f"{each['bytes_far'] / 1e6:.0f} MB",
        ]
        for dtype, each in results.items()
        if isinstance(each, dict)
    ]
    near, far = (f"{results[name]:,}" for name in ("near", "far"))
    header = ["weights", f"µs per byte at {near}", f"at {far}", "ratio", f"memory after {far} bytes"]
    return _with_source(header, rows, ["long-texts-cpu"], link)


def recipe(link: Callable[[str], str]) -> str:
    """What each change of the training recipe brought; each row keeps the changes above it."""
    rows = [
        [name, f"{arm['bytes_seen'] / 1e6:.2f}", f"{arm['seconds']:.0f}", f"{arm['dev_bits_per_byte']:.4f}"]
        for name, arm in load("learning")["results"].items()
    ]
    return _with_source(["change", "MB seen", "seconds", "held-out bits per byte"], rows, ["learning"], link)


def tried(link: Callable[[str], str]) -> str:
    """One further change each."""
    return _with_source(["change", "held-out bits per byte"], _arms(load("tried")["results"]), ["tried"], link)


def patching(link: Callable[[str], str]) -> str:
    """Rules, mean patch lengths and entropy models at equal training FLOPs."""
    arms = _find_arms(load("choosing-patches")["results"])
    rows = [
        [name, f"{arm['mean_patch_bytes']:.1f}", f"{arm['bytes_seen'] / 1e6:.2f}", f"{arm['dev_bits_per_byte']:.4f}"]
        for name, arm in arms.items()
    ]
    header = ["patches", "bytes per patch", "MB seen", "held-out bits per byte"]
    return _with_source(header, rows, ["choosing-patches"], link)


def little_text(link: Callable[[str], str]) -> str:
    """Regularisation on little text."""
    rows = _arms(load("little-text")["results"]["arms"])
    return _with_source(["regularisation", "held-out bits per byte"], rows, ["little-text"], link)


def optimizers(link: Callable[[str], str]) -> str:
    """Muon beside AdamW at its best rate."""
    names = {"optimizers-55m": "`tinystories-55m`", "optimizers-tiny": "`tiny`", "optimizers": "small"}
    rows = [
        [words, arm, f"{found['bytes_seen'] / 1e6:.1f}", f"{found['dev_bits_per_byte']:.4f}"]
        for name, words in names.items()
        for arm, found in _find_arms(load(name)["results"]["in full"]).items()
    ]
    return _with_source(["shape", "optimiser", "MB seen", "held-out bits per byte"], rows, list(names), link)


def scaling(link: Callable[[str], str]) -> str:
    """Time and memory of a forward pass by length of the text."""
    rows = [
        [row["part"], f"{row['bytes']:,}", f"{row['seconds']:.3f}", f"{row['peak_bytes'] / 1e6:.1f}"]
        for row in load("forward-scaling-cpu")["results"]["rows"]
    ]
    return _with_source(["part", "bytes", "seconds", "peak MB"], rows, ["forward-scaling-cpu"], link)


def caches(link: Callable[[str], str]) -> str:
    """Memory of decoding by bytes read."""
    parts = ("entropy model", "local encoder", "local decoder", "global transformer")
    rows = [
        [f"{row['bytes_read']:,}", f"{row['patches']:,}", *(f"{row['caches'][part] / 1e6:.1f}" for part in parts)]
        for row in load("exactness-cpu")["results"]["memory"]
    ]
    header = ["bytes read", "patches", *(f"{part}, MB" for part in parts)]
    return _with_source(header, rows, ["exactness-cpu"], link)


def exactness(link: Callable[[str], str]) -> str:
    """Greedy decoding compared with the full forward pass."""
    rows = [
        [name.replace("guessing", "drafting"), f"{each['bytes_compared']:,}", f"{each['bytes_that_differ']:,}"]
        for name, each in load("exactness-cpu")["results"]["greedy"].items()
    ]
    return _with_source(["patch rule and batch", "bytes compared", "bytes that differ"], rows, ["exactness-cpu"], link)


def all_records(link: Callable[[str], str]) -> str:
    """Every record: claim, device, commit and date."""
    rows = []
    for path in sorted(RECORDS.glob("*.json")):
        record = load(path.stem)
        shown = [str(record.get(key, "")) for key in ("device", "threads", "date")]
        rows.append([f"[{path.stem}]({link(path.stem)})", record["claim"], *shown, f"`{record['commit'][:12]}`"])
    return markdown(["record", "claim", "device", "threads", "date", "commit"], rows)


def certified(link: Callable[[str], str]) -> str:
    """Certified bits per byte of the bundled model, and what they differ by."""
    results = load("certified")["results"]
    found = results["certified"]
    rows = [
        ["`blt evaluate`", *_bits(results)],
        ["certified: coded and decoded", *_bits(found)],
        ["its frequencies, without the coder's own bytes", f"{found['frequency_bits_per_byte']:.4f}", ""],
        ["difference", f"{found['difference']:+.4f} ({found['relative_difference']:+.2%})", ""],
    ]
    return _with_source(["figure", "bits per byte", "95% interval"], rows, ["certified"], link)


def noise(link: Callable[[str], str]) -> str:
    """What each perturbation costs the bundled model, by place."""
    results = load("noise")["results"]
    clean = results["clean"]
    rows = [["none", "", _interval(clean["bits_per_byte"]), *(_interval(clean["accuracy"][pair]) for pair in _PAIRS)]]
    for each in [*results["noised"], results["average"]]:
        name = f"`{each['perturbation']}`" if each["perturbation"] else "average"
        lost = (_interval(each["lost"][pair], signed=True) for pair in _PAIRS)
        rows.append([name, each["place"] or "", _interval(each["bits_per_byte"]), *lost])
    header = ["noise", "on", "bits per byte", "`other`: accuracy, then lost", "`swapped`: accuracy, then lost"]
    return _with_source(header, rows, ["noise"], link)


def probe(link: Callable[[str], str]) -> str:
    """What the bundled model knows of characters."""
    results = load("probe")["results"]
    named = [*results["tasks"], *({**each, "task": "average"} for each in results["averages"].values())]
    rows = [
        [
            {"cute": "CUTE", "words": "words"}[each["source"]],
            f"`{each['task']}`" if each["task"] != "average" else "average",
            _interval(each["choice"]),
            _interval(each["mutual"]),
            f"{each['chance']:.2f}",
            _interval(each["exact_match"]),
        ]
        for each in named
    ]
    header = ["of", "task", "chosen right", "by mutual information", "chance", "written right"]
    return _with_source(header, rows, ["probe"], link)


def compression(link: Callable[[str], str]) -> str:
    """Bits per byte of whole files, beside other compressors."""
    names = ["compression", "compression-languages"]
    found = {file: each for name in names for file, each in load(name)["results"].items()}
    sides = ["blt, int8", "blt, int8, learning", "xz -9e", "zstd --ultra -19", "brotli -q 11", "PPMd H, order 8"]
    rows = [
        [file, f"{each['bytes']:,}", *(f"{each[side]['bits_per_byte']:.3f}" for side in sides)]
        for file, each in found.items()
    ]
    return _with_source(["text", "bytes", *sides], rows, names, link)


def compression_speed(link: Callable[[str], str]) -> str:
    """Kilobytes per second of each compressor, and how many times that of `blt`."""
    results = load("compression-speed")["results"]["tinystories-v2-valid.txt"]
    speeds = {side: found["kilobytes_per_second"] for side, found in results.items() if isinstance(found, dict)}
    ours = speeds["blt, int8"]
    rows = [
        [side, *(f"{_speed(rate)} ({_speed(rate / base)}×)" for rate, base in zip(rates, ours, strict=True))]
        for side, rates in speeds.items()
    ]
    header = ["compressor", "kB/s compressing", "kB/s decompressing"]
    return _with_source(header, rows, ["compression-speed"], link)


_PAIRS = ("other", "swapped")


def _bits(found: dict[str, Any]) -> list[str]:
    return [f"{found['bits_per_byte']:.4f}", f"{found['interval_low']:.4f} to {found['interval_high']:.4f}"]


def _of_the_fight(make: Callable[[dict[str, Any]], fight.Table]) -> Callable[[Callable[[str], str]], str]:
    def table(link: Callable[[str], str]) -> str:
        return _with_source(*make(load("equal-fight")["results"]), ["equal-fight"], link)

    return table


def _interval(found: dict[str, float], *, signed: bool = False) -> str:
    form = "+.2f" if signed else ".2f"
    return f"{found['value']:{form}} ({found['low']:{form}} to {found['high']:{form}})"


def plan(link: Callable[[str], str]) -> str:
    """Training on two processes: measured, and predicted from one."""
    results = load("scaling-cpu")["results"]
    predicted, rows = results["predictions of the plan"], []
    for name, way in (("one process", None), ("sum by hand", "ddp"), ("ddp", "ddp"), ("fsdp", "fsdp")):
        found = results[name]
        shown = [name, f"{found['median seconds of a step']:.3f}", f"{found['times as fast as one process']:.2f}"]
        wanted = None if way is None else predicted[way]
        seconds = [] if wanted is None else [wanted["seconds of a step"], wanted["seconds of a step with overlap"]]
        shown += [f"{each:.3f}" for each in seconds] or ["given", "given"]
        rows.append([*shown, "" if wanted is None else f"{seconds[0] / found['median seconds of a step'] - 1:+.0%}"])
    header = [
        "two processes, one core each",
        "seconds of a step",
        "times as fast",
        "planned, no overlap",
        "with overlap",
        "off",
    ]
    return _with_source(header, rows, ["scaling-cpu"], link)


def device_waits(link: Callable[[str], str]) -> str:
    """Waits for a GPU and copies to and from it, before and after; where one alone is there, the other is empty."""
    before, after = (_counts(load("device-waits")["results"][when]) for when in ("before", "after"))
    rows = []
    for what, now in after.items():
        then = before.get(what, dict.fromkeys(now))
        counts = [*then.values(), *now.values()]
        rows.append([what, *("" if count is None else f"{count:.3g}" for count in counts)])
    counted = ["waits", "copies to the GPU", "copies to the host"]
    header = ["counted", *(f"{what}, {when}" for when in ("before", "after") for what in counted)]
    return _with_source(header, rows, ["device-waits"], link)


def _counts(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return counts by what was done."""
    found = {}
    for kind, counts in results["training"].items():
        found[f"training step, {kind}"] = counts["per step"]
        found[f"the same, with a row of metrics, {kind}"] = counts["per step with a row of metrics"]
    found |= {f"a byte of every row, {way}": counts for way, counts in results["writing, per pass of all rows"].items()}
    return found | {"a prompt that joins": results["a prompt that joins"]}


TABLES: dict[str, Callable[[Callable[[str], str]], str]] = {
    "all": all_records,
    "bundled": bundled,
    "caches": caches,
    "certified": certified,
    "compression": compression,
    "compression-speed": compression_speed,
    "decoding": decoding,
    "device-waits": device_waits,
    "drafting": drafting,
    "noise": noise,
    "probe": probe,
    "quantised": quantised,
    "exactness": exactness,
    "little-text": little_text,
    "llama-cpp": llama_cpp,
    "llama-cpp-avx2": functools.partial(llama_cpp, record="llama-cpp-avx2-cpu"),
    "long-texts": long_texts,
    "optimizers": optimizers,
    "patching": patching,
    "plan": plan,
    "recipe": recipe,
    "scaling": scaling,
    "serving": serving,
    "speed": speed,
    "threshold": threshold,
    "training": training,
    "tried": tried,
}
"""Every table by the name that pages call it."""
TABLES |= {f"fight-{name}": _of_the_fight(make) for name, make in fight.TABLES.items()}


def _trained() -> dict[str, dict[str, Any]]:
    results = load("training-cpu")["results"]
    return {name: each for name, each in results.items() if isinstance(each, dict) and "bytes_per_second" in each}


def _speed(bytes_per_second: float) -> str:
    return f"{bytes_per_second:,.0f}" if bytes_per_second >= 100 else f"{bytes_per_second:.1f}"


def _find_arms(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return whatever was trained and measured, at any depth."""
    found: dict[str, dict[str, Any]] = {}
    for name, each in results.items():
        if isinstance(each, dict) and "dev_bits_per_byte" in each:
            found[name] = each
        elif isinstance(each, dict):
            found |= _find_arms(each)
    return found


def _arms(results: dict[str, Any]) -> list[list[str]]:
    return [[name, f"{arm['dev_bits_per_byte']:.4f}"] for name, arm in _find_arms(results).items()]


def _with_source(
    header: Sequence[str], rows: Iterable[Sequence[str]], names: Sequence[str], link: Callable[[str], str]
) -> str:
    """Return a table and, under it, the records that it comes from."""
    sources = []
    for name in names:
        record = load(name)
        threads = f", threads: {record['threads']}" if "threads" in record else ""
        sources.append(f"[{name}]({link(name)}) ({record['device']}{threads})")
    return f"{markdown(header, rows)}\n\nRecord: {'; '.join(sources)}."
