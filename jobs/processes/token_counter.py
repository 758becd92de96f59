"""Counts the tokens of texts.

    python -m jobs.processes.token_counter TOKENIZER_FILE

Standard input is a socket of JSON lines: a text per line, answered by its number of tokens, without special tokens.
"""

import json
import os
import socket
import sys

from tokenizers import Tokenizer


def main(path: str) -> None:
    """Answer each line of standard input."""
    tokenizer = Tokenizer.from_file(path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    with socket.socket(fileno=os.dup(0)) as channel, channel.makefile("rw", encoding="utf-8") as lines:
        for line in lines:
            print(len(tokenizer.encode(json.loads(line), add_special_tokens=False).ids), file=lines, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
