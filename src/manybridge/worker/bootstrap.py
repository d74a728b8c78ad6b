"""Start a worker in an environment where manybridge is not installed.

Run as a file: `python -I .../manybridge/worker/bootstrap.py BRIDGE ...`. Only the package `manybridge` becomes
importable, by its own folder; the site-packages that it lies in do not, because a host's libraries on the path of a
framework's environment are the very conflict that manybridge exists to prevent.
"""

import os
import sys


def make_importable() -> None:
    """Put the package `manybridge` that this file belongs to into `sys.modules`, from its own folder."""
    from importlib.util import module_from_spec, spec_from_file_location

    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    spec = spec_from_file_location(
        "manybridge", os.path.join(package, "__init__.py"), submodule_search_locations=[package]
    )
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["manybridge"] = module
    spec.loader.exec_module(module)


if __name__ in {"__main__", "__mp_main__"}:  # a process that user code starts through multiprocessing needs it too
    make_importable()

if __name__ == "__main__":
    from manybridge.worker.main import main

    sys.exit(main(sys.argv[1:]))
