"""The process that compiles: started with the native module's path, memory, seconds and meter.

Run by its path and never imported, with nothing of the environment and no site packages, so that
it starts in a moment and is the very module that asks (``rust/sandbox/src/compiler.rs``).
"""

import os
import signal
import sys
from importlib.util import module_from_spec, spec_from_file_location


def main(native: str, memory: str, seconds: str, meter: str) -> None:
    """Compile standard input to standard output, within limits."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # compiling asks no interpreter whether to stop
    spec = spec_from_file_location("moat._native", native)
    if spec is None or spec.loader is None:
        raise ImportError(native)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.serve(int(memory), int(seconds), {"fuel": True, "time": False}[meter])


if __name__ == "__main__":
    main(*sys.argv[1:])
