"""Test that a fuzzer which reads /openapi.json finds no error of the server and no response that differs from it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from serving import ONCE, running

from numpy_gpt.text.template import ALPACA

pytest.importorskip("schemathesis", reason="schemathesis isn't installed: pip install -e '.[ci]'")

# Some valid bodies are refused: the schema can't say that prompt and max_tokens fit the context, for example.
CONFIG = "\n".join(
    f'[[operations]]\ninclude-path = "{path}"\nchecks.positive_data_acceptance.enabled = false'
    for path in ("/v1/completions", "/v1/chat/completions", "/inspect")
)


@pytest.mark.slow
def test_fuzzer_finds_no_failure(tmp_path):
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    command = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    with running("--api-key", "secret", template=ALPACA) as server:
        options = ["--phases", "examples,coverage,fuzzing", "--max-examples", "50", "--seed", "1", "--no-color"]
        done = subprocess.run(
            [command, "run", f"{server.url}/openapi.json", "-H", "Authorization: Bearer secret", *options],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout
        assert "Operations:       10 selected / 10 total" in done.stdout
        metrics = server.get("/metrics", headers={"authorization": "Bearer secret"}).text
        assert 'status="5' not in metrics
        headers = {"authorization": "Bearer secret"}
        assert server.post("/v1/completions", {"prompt": ONCE, "max_tokens": 1}, headers=headers)[0] == 200
