"""What learns from the world and its language, to become the embedded base.

    trainer.py      one loop that saves, resumes, logs and averages the weights
    pictures.py     the pictures that everything learns from, on disk
    tokenizer.py    byte-level BPE
    autoencoder.py  pixels and latents; and the decoder, finished on what the base draws
    attributes.py   the vision encoder, and the reader of reports
    words.py        the understanding expert
    drawing.py      the generation expert
    judges.py       what the rewards need: a CLIP and an identity encoder
    measure.py      what the base can do
    grids.py        sample grids
"""
