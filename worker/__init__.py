"""The GPU process: claims jobs, and runs each in a process of its own. `worker.muka` is the science."""
