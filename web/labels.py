"""What the page calls the stages, the charts of a log and their curves: plain words for those who did not write it."""

STAGES = {"base": "untrained", "sft": "after stage 1", "grpo": "after stage 2"}
HEADINGS = {"sft": "Stage 1: learning from examples (SFT)", "grpo": "Stage 2: practising for a reward (GRPO)"}

# By the title of a chart (runtime/curves.py): what it shows, and what is good.
CHARTS = {
    "cross-entropy per token, by task": "How much the right words surprise it. Falling is good.",
    "flow loss by noise level, t0 = clearest": "How far its drawing is off, by noise in the picture. Falling is good.",
    "flow loss per latent token, by task": "How far its drawing is off, by what it draws from. Falling is good; what "
                                           "it drew before it learned only has to stay.",
    "bits per byte of held-out replies": "How much replies that it was never told surprise it. Falling is good; rising "
                                         "while the rest falls means that it learns by heart.",
    "held-out scores": "Marks for pictures that it did not practise. Rising is good, but others should not become like "
                       "it, and the stripes should stay near 1.",
    "spread of the reward inside groups": "How much the marks of pictures for one text differ. Above 0 is good: where "
                                          "all are alike there is nothing to learn.",
    "gradient norm before clipping": "How hard a step pulls. Calm is good; jumps are a warning.",
    "how far the policy moved": "How far one round of practice goes. A little is good; 0 is standing still.",
    "loss": "What the steps make smaller. Falling is good in stage 1; in stage 2 it is near 0 and says little.",
    "reward by term": "Marks for pictures from practice. Rising is good, but others should not become like it, and the "
                      "stripes should stay near 1.",
}

# By the last part of a curve's name in the log.
CURVES = {
    "reply": "talk", "fact": "facts in a talk", "think": "plans of pictures", "moment": "what to draw",
    "nearby": "lines that others are told",
    "knowledge": "facts about itself", "vqa": "questions about pictures",
    "t2i": "from a sentence", "t2i_dialogue": "from a talk", "t2i_plan": "from a plan",
    "prior": "what it drew before", "prior_reply": "talk of others", "prior_knowledge": "facts of others",
    "prior_vqa": "questions about others' pictures",
    "t0": "little noise", "t1": "some noise", "t2": "much noise", "t3": "nearly all noise",
    "total": "all together", "clip_t": "fits the text", "diversity": "variety",
    "identity": "neither a copy nor a stranger", "likeness": "likeness", "strangers": "likeness of others",
    "grid": "stripes", "reader": "a judge who gives no reward",
    "unasked": "share without questions", "held_out_bits": "replies", "grad_norm": "pull", "loss": "loss",
    "from_old": "distance from the old policy", "max_ratio_change": "largest change", "clip_fraction": "share that was held back",
}
