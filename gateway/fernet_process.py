"""A process that seals and opens for another one, which does not have to load the library for it: `python -P FILE`, on stdin and stdout.

Each line is JSON. The first is the key, every other one what to do and with which text; the answer is the text, or null for what was
sealed with another key. It ends with its input.
"""

import json
import sys

from cryptography.fernet import Fernet, InvalidToken


def main() -> None:
    fernet = Fernet(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        what, text = json.loads(line)
        try:
            done = fernet.encrypt(text.encode()) if what == "seal" else fernet.decrypt(text)
        except InvalidToken:
            print("null", flush=True)  # noqa: T201 — read by who started us
        else:
            print(json.dumps(done.decode()), flush=True)  # noqa: T201 — as above


if __name__ == "__main__":
    main()
