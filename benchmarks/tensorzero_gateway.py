"""TensorZero's gateway from PyPI: `python tensorzero_gateway.py CONFIGURATION PORT_FILE`, in TensorZero's own environment.

The package has no server to start by itself. Its documented way to a gateway without Docker is patch_openai_client, which starts the
Rust gateway inside this process, on a port of its choice, and hands it to a client as its base URL.
"""

import sys
import threading
from pathlib import Path

from tensorzero import patch_openai_client  # type: ignore[import-not-found]  # installed for the comparison alone


class Client:
    """What is patched: of OpenAI's client only this is ever looked at."""

    base_url = ""


def main(configuration: str, port_file: str) -> None:
    client = patch_openai_client(Client(), config_file=configuration, async_setup=False)
    port = str(client.base_url).split(":")[2].partition("/")[0]
    Path(port_file).write_text(f"{port}\n", encoding="utf-8")
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
