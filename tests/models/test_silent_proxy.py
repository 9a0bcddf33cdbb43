"""A proxy that takes connections and never answers, as on some networks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

_FIND = """
from nemo_embed_dask.models import hub, locate
hub._TIMEOUT_S = 0.5
locate.find_model(locate.ModelRef("some/model"))
"""


def test_a_proxy_that_never_answers_ends_in_an_error_that_names_it(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        url = f"http://user:SECRET@127.0.0.1:{proxy.getsockname()[1]}"
        others = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        environment = {**others, "HTTPS_PROXY": url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
        run = subprocess.run(
            [sys.executable, "-c", _FIND], env=environment, timeout=120, capture_output=True, text=True
        )
    error = run.stderr.splitlines()[-1]
    assert "ModelError: model 'some/model' was not found (" in error
    assert "the proxy that HTTPS_PROXY names" in error
    assert "SECRET" not in run.stderr
