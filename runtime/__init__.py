"""How does a run survive, scale, and know its cost? Not needed to follow the method.

    cli.py        options from a dataclass, a user's mistake in one line
    files.py      files that no kill can leave half written
    processes.py  several processes on several GPUs, by torchrun and FSDP2
    runs.py       what a run leaves on disk: log, sample grids, checkpoint, and the state from which it goes on
    report.py     figures with their errors, tables, and the contact sheet
    plan.py       parameters, memory, FLOPs and GPU-hours of a run before anything is loaded
    counting.py   how plan.py counts: a model without numbers
    bench.py      speed of a training step, a denoising step and a reply token
"""
