"""The lowest versions that pyproject.toml promises, as pip constraints: `python tests/lowest.py > lowest.txt`.

Of the dependencies and of what the core tests need besides (notebooks, export, shards); development tools stay free.
"""

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXTRAS = ("notebooks", "export", "shards")


def lowest() -> list[str]:
    """One `name==version` for every requirement `name>=version`."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(r for extra in EXTRAS for r in project["optional-dependencies"][extra])]
    return [re.sub(r">=([\w.]+).*", r"==\1", requirement) for requirement in wanted]


if __name__ == "__main__":
    print("\n".join(lowest()))
