"""A dataset of Ray: the moments of all actors together are those of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from permgraph.errors import UsageError
from permgraph.ray_data import calibrate_dataset

SCRIPT = Path(__file__).parent / "ray_script.py"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (permgraph[ray])")
def test_the_sum_over_actors_is_that_of_one_process() -> None:
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for actors in ("1 actors", "2 actors"):
        error = found[actors].pop("error")
        assert error < 1e-6 and all(found[actors].values()), found
    assert "actors=0" in found["none"]


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_it_says_what_to_install() -> None:
    with pytest.raises(UsageError, match=r"pip install 'permgraph\[ray\]'"):
        calibrate_dataset(None, None, None, inputs=dict)
