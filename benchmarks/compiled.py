"""Another program of these, on what `penstock compile` made: `python -m benchmarks.compiled benchmarks.hot_path --limits`."""

import runpy
import sys

from gateway import compiled

if __name__ == "__main__":
    if not compiled.use():
        sys.exit("Nothing is compiled of this source: penstock compile")
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
