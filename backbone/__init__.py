"""What a backbone needs around the decoder of model.py: nothing here is needed to follow the method.

    vision.py     eye and canvas: the vision tower, the autoencoder, patches and positions
    folders.py    everything that reads or writes weights: ours, adapters, BAGEL's as published, Qwen2-family models
    lora.py       low-rank adapters, eight-bit weights: what fits 7B on one GPU
    parallel.py   several GPUs, by torchrun and FSDP2
    plan.py       parameters, memory, FLOPs and GPU-hours of a run before anything is loaded
    bench.py      speed of a training step, a denoising step and a reply token, and the share of the machine it uses
"""
