"""`python -m nnunet_fedmepd COMMAND ...`: see `launch`."""

import runpy

if __name__ == "__main__":
    # Spawned workers import their parent's main module, but never one called __main__. So `launch` takes its place.
    runpy.run_module("nnunet_fedmepd.launch", run_name="__main__", alter_sys=True)
