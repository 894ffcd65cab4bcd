"""Two workers share two cores: one thread for each, set before numpy and torch are imported. Four are much slower.

And one folder, in which a network that one of them has captured is found by the other.

`@pytest.mark.sampled(n)`: of a test with many cases, n of them, spread over all, are run by default; the others are marked slow.
"""

import os
import shutil
import tempfile
from collections import defaultdict

import pytest

for _library in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_library, "1")
_TRACES = "PERMGRAPH_TEST_TRACES"  # read by tools/networks/traced.py; workers inherit it


def pytest_configure(config: pytest.Config) -> None:
    if _TRACES not in os.environ:
        os.environ[_TRACES] = tempfile.mkdtemp(prefix="permgraph-traces-")
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop(_TRACES), ignore_errors=True))


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses by marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    cases = defaultdict(list)
    for item in items:
        if item.get_closest_marker("sampled") and not item.get_closest_marker("slow"):
            cases[item.nodeid.partition("[")[0]].append(item)
    for found in cases.values():
        wanted = found[0].get_closest_marker("sampled").args[0]
        kept = {i * len(found) // wanted for i in range(wanted)}
        for i, item in enumerate(found):
            if i not in kept:
                item.add_marker(pytest.mark.slow)
