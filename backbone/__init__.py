"""Which published parts does model.py wrap, and how are they read and fitted? Not needed to follow the method.

    vision.py     the vision encoder (SigLIP's) and the autoencoder (FLUX's), under their published parameter names
    folders.py    reads and writes folders of weights: our checkpoints, adapters, BAGEL's as published
    lora.py       low-rank adapters and eight-bit weights: what fits 7B on one GPU
    wrap.py       a Qwen2-family language model becomes a unified model
"""
