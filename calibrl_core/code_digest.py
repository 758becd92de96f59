"""A digest of the package's own code, for results that are kept as long as the code stays the same."""

import json
from hashlib import sha256
from pathlib import Path


def code_digest(*folders: str) -> str:
    """Return a digest of the Python files in folders of this package."""
    root = Path(__file__).parent
    files = sorted(file for folder in folders for file in (root / folder).rglob("*.py"))
    parts = [[str(file.relative_to(root)), sha256(file.read_bytes()).hexdigest()] for file in files]
    return sha256(json.dumps(parts).encode()).hexdigest()
