"""The tokenizer of the base: byte-level BPE, so nothing is unencodable."""
import random
from pathlib import Path

from data import plan_text, reply_prompt
from model import SPECIAL, Config
from tiny import language, world
from tiny.language import english


def world_text(rng) -> str:
    """A little of everything that is said in the invented world."""
    p = language.random_persona(rng)
    talk, moment, scene = language.conversation(p, rng), language.moment(p, rng), world.random_scene(rng)
    asked = [f"{question} {answer}" for question, answer, _ in world.questions(scene, rng)]
    known = [" ".join(language.knowledge(p, kind, rng)) for kind in rng.sample(language.kinds(p), 4)]
    told = reply_prompt(p.name, talk.description, talk.opening, talk.user, talk.history)
    return "\n".join([told, talk.reply, moment.user, moment.reply, plan_text(moment.thinking, moment.instruction),
                      moment.draw, world.caption(scene, rng), *rng.sample(asked, 4), *known, language.story(rng)])


def make_tokenizer(folder: Path, packages: Path):
    """Six parts of real English, seven of the invented world."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast
    rng = random.Random(0)
    real = [text for row in rng.sample(english.exchanges(packages), 50000) for text in row[1:]]
    invented = [world_text(rng) for _ in range(5000)]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    bpe.train_from_iterator(real + invented, trainers.BpeTrainer(
        vocab_size=Config.vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(SPECIAL), show_progress=False))
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=SPECIAL[1], pad_token=SPECIAL[1],
                                   additional_special_tokens=list(SPECIAL))
    fast.save_pretrained(folder)
