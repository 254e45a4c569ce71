"""Make the soak, and the bench that it is built on, importable."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Only these packages: with the checkout on the path, `config` and `homeassistant` would be importable too.
for name in ("bench", "soak"):
    if name not in sys.modules:
        folder = ROOT / name
        spec = importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        package = importlib.util.module_from_spec(spec)
        sys.modules[name] = package
        spec.loader.exec_module(package)
