"""Two workers share two cores: one thread for each, set before numpy and torch are imported. Four are much slower.

And one folder, in which a network that one of them has captured is found by the other.
"""

import os
import shutil
import tempfile

import pytest

for _library in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_library, "1")
_TRACES = "PERMGRAPH_TEST_TRACES"  # read by tools/networks/traced.py; workers inherit it


def pytest_configure(config: pytest.Config) -> None:
    if _TRACES not in os.environ:
        os.environ[_TRACES] = tempfile.mkdtemp(prefix="permgraph-traces-")
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop(_TRACES), ignore_errors=True))
