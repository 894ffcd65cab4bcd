"""Two workers share two cores: one thread for each, set before numpy and torch are imported. Four are much slower."""

import os

for _library in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_library, "1")
