"""How was the embedded base made? A drawn world, its language, and what learns from them. A reader of the method may
skip it all.

    world/       scenes: which exist, how they are drawn, told, and asked about
    language/    personas: what is true of them, how they talk; and real English
    training/    what learns from both
    build.py     the one command that makes everything that stands here, from nothing
    originals.py the pictures of the shipped characters, whom no training of the base sees; originals/ has their looks

    base/ judge/ identity/ reader/       the weights: the base, and the judges of its rewards and reports
"""
