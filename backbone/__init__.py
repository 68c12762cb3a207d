"""What a backbone and a run need around the method: nothing here is needed to follow it.

    sizes.py      the sizes of a model
    vision.py     eye and canvas: the vision tower, the autoencoder, patches and positions
    folders.py    everything that reads or writes weights: ours, adapters, BAGEL's as published, Qwen2-family models
    lora.py       low-rank adapters, eight-bit weights: what fits 7B on one GPU
    parallel.py   several GPUs, by torchrun and FSDP2
    runs.py       what a run leaves on disk: log, sheets, checkpoint, and the state from which it goes on
    plan.py       parameters, memory, FLOPs and GPU-hours of a run before anything is loaded
    counting.py   how plan.py counts: a model without numbers
    scripts.py    what every script needs: options, a user's mistake in one line
    tables.py     how figures are shown: tables and the contact sheet
    bench.py      speed of a training step, a denoising step and a reply token, and the share of the machine it uses
"""
