import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def test_forward_scaling_writes_a_record_of_every_part_and_length(tmp_path):
    out = tmp_path / "records" / "scaling.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "forward_scaling.py"), "--preset", "tiny", "--threads", "1"]
    command += ["--lengths", "128,256,512", "--repeats", "1", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "embedding and encoder" in done.stdout
    record = json.loads(out.read_text())
    assert record["claim"].startswith("Time and memory")
    assert record["command"].startswith("python benchmarks/forward_scaling.py --preset tiny")
    assert record["threads"] == 1
    assert {"commit", "date", "torch", "python", "device"} <= record.keys()
    rows = record["results"]["rows"]
    assert len(rows) == 9
    peaks = {(row["part"], row["bytes"]): row["peak_bytes"] for row in rows}
    for part in ("embedding and encoder", "decoder and logits"):
        assert peaks[part, 512] == pytest.approx(2 * peaks[part, 256], rel=0.1)
    assert peaks["decoder and logits", 512] > 512 * 260 * 4  # the logits alone
