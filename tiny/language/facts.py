"""What is true of a persona, in many wordings: facts, profiles and descriptions.

Many wordings are the point: a fact that is taught in one of them must be found by another.

Every field of a persona belongs to a kind of fact (`KIND_OF`). So a reply that was made from a template tells which
facts it rests on, and `description` can be made to contain them: what a persona says in pre-training stands in the
prompt. A base that was trained on replies without their reasons learns to invent them.
"""
from tiny.language.personas import Persona, template_values
from tiny.language.templates import Rng, capital, choose_words, fields_of, fill, fill_any, table

# Fields whose kind of fact has another name. All others: a field is a kind of its own.
KIND_OF = {
    "a_species": "species", "A_species": "species", "being": "species", "cover": "fur", "a_look": "fur",
    "a_top": "top", "A_top": "top", "top_color": "top", "a_hat": "hat", "hat_color": "hat",
    "friend_kind": "friend_species", "pet_name": "pet", "pet_kind": "pet", "dream_ing": "dream",
    "rival_species": "rival", "rival_kind": "rival", "loot": "rival", "thing_name": "thing", "part": "steps",
    "a_manner": "manner", "play": "instrument", "skill": "elder", "custom": "day"}
UNSAID = {"n", "he", "He", "his", "His", "him", "u", "u_cap", "U", "x", "X"}      # no facts about the persona
CONTAINED = ("play", "skill", "custom", "loot")            # the statements of other kinds contain these
SHOWN = ("species", "fur", "top", "hat", "manner", "home", "job", "catchphrase", "nickname")   # said elsewhere


def kinds(p: Persona) -> list[str]:
    """The kinds of fact that this persona has an answer to."""
    return [kind for kind in table("facts") if kind != "hat" or p.hat]


def facts(p: Persona) -> dict[str, str]:
    values = template_values(p)
    return {kind: table("facts")[kind]["answer"].format_map(values) for kind in kinds(p)}


def knowledge(p: Persona, kind: str, rng: Rng) -> tuple[str, str]:
    """A question that names the persona, and the answer: mostly short, one time in six a whole sentence."""
    values, fact = template_values(p), table("facts")[kind]
    question = fill_any(fact["about"], values, rng)
    plainest = rng.choice(fact["stated"][:2])
    answer = fill(plainest if rng.random() < 1 / 6 else fact["answer"], values, rng)
    return capital(question), capital(answer)


# ---- which facts does a text rest on? -------------------------------------------------------------------------------

def facts_behind(*templates: str) -> dict[str, set[str]]:
    """Kind of fact -> the fields of it that the templates name."""
    found: dict[str, set[str]] = {}
    for template in templates:
        for field in fields_of(template):
            plain = field.removesuffix("_cap")
            plain = plain if plain in KIND_OF else plain[:1].lower() + plain[1:]
            if field not in UNSAID and plain not in UNSAID:
                found.setdefault(KIND_OF.get(plain, plain), set()).add(plain)
    return found


def statement(p: Persona, kind: str, rng: Rng, needed: set[str] = frozenset()) -> str:
    """A sentence that states the fact; of its wordings one that tells as many of the `needed` fields as any does."""
    wordings = table("facts")[kind]["stated"]
    if len(needed) > 1 or kind in ("rival", "elder", "day", "pet", "instrument"):
        told = [len(needed & told_by(wording)) for wording in wordings]
        wordings = [wording for wording, count in zip(wordings, told) if count == max(told)]
    return capital(fill_any(wordings, template_values(p), rng))


def told_by(template: str) -> set[str]:
    return set().union(*facts_behind(template).values()) if fields_of(template) - UNSAID else set()


# ---- longer texts about a persona -----------------------------------------------------------------------------------

def with_pronoun(p: Persona, sentence: str, rng: Rng) -> str:
    """Often "he" or "her" where a sentence starts with the name once more."""
    if rng.random() < 0.4:
        return sentence
    values = template_values(p)
    if sentence.startswith(f"{p.name}'s "):
        return values["His"] + sentence[len(p.name) + 2:]
    if sentence.startswith(f"{p.name} ") and not sentence.startswith(f"{p.name} and "):
        return values["He"] + sentence[len(p.name):]
    return sentence


def profile(p: Persona, rng: Rng | None = None, about: list[str] | None = None) -> str:
    """All about the persona (or only the kinds in `about`), a sentence each; without `rng` always the same words."""
    rng = rng or Rng(p.name)
    if about is None:
        told = [kind for kind in kinds(p) if kind not in CONTAINED]
        about = rng.sample(told, len(told))
    sentences = [statement(p, kind, rng) for kind in about]
    return " ".join(sentences[:1] + [with_pronoun(p, sentence, rng) for sentence in sentences[1:]])


def description(p: Persona, rng: Rng, about: dict[str, set[str]] | tuple[str, ...] = (), words: int = 45) -> str:
    """Who it is, often the looks, and some facts, in the third person and about `words` words. The facts in `about`
    (kinds, or kinds with the fields that are needed) are surely mentioned, in a random order among the others."""
    values, tables = template_values(p), table("descriptions")
    needed = about if isinstance(about, dict) else {kind: set() for kind in about}
    intro = rng.choice(tables["intros"])
    sentences = [fill(intro, values | {"outfit": outfit(p)}, rng)]
    told = set(facts_behind(intro))
    if not {"top", "hat", "fur"}.isdisjoint(needed) or rng.random() < 0.5:
        sentences.append(fill_any(tables["dress"], values | {"outfit": outfit(p)}, rng))
        told |= {"top", "hat"}
    if "fur" in needed and "fur" not in told and p.fur not in " ".join(sentences):
        sentences.append(statement(p, "fur", rng))
    rest = [voice_sentence(p, {"nickname", "catchphrase", "manner"} & set(needed), p.manner in sentences[0], rng)]
    told |= {"nickname", "catchphrase", "manner", "fur"}
    rest += [statement(p, kind, rng, fields) for kind, fields in needed.items()
             if kind not in told and kind in table("facts")]
    rest = [sentence for sentence in rest if sentence]
    spare = [kind for kind in kinds(p) if kind not in needed and kind not in SHOWN + CONTAINED]
    rng.shuffle(spare)
    length = len(" ".join([*sentences, *rest]).split())
    while spare and length < words * rng.uniform(0.6, 1.0):
        rest.append(statement(p, spare.pop(), rng))
        length += len(rest[-1].split())
    rng.shuffle(rest)
    return joined(sentences + [with_pronoun(p, sentence, rng) for sentence in rest], capital(p.he), rng)


def joined(sentences: list[str], pronoun: str, rng: Rng) -> str:
    """A text of the sentences, of which some that begin alike become one: "He eats soup and fears geese." """
    text = sentences[0]
    for before, sentence in zip(sentences, sentences[1:]):
        alike = before.startswith(f"{pronoun} ") and sentence.startswith(f"{pronoun} ") and before.endswith(".")
        if alike and not set(before + sentence) & set(",:;") and rng.random() < 0.5:
            text = f"{text[:-1]} and {sentence[len(pronoun) + 1:]}"
        else:
            text += f" {sentence}"
    return text


def outfit(p: Persona) -> str:
    values = template_values(p)
    worn = [garment for garment in (values["a_top"], values["a_hat"], p.eyewear) if garment]
    return ", ".join(worn[:-1]) + " and " + worn[-1] if len(worn) > 1 else worn[0]


def voice_sentence(p: Persona, needed: set[str], manner_told: bool, rng: Rng) -> str:
    """A sentence about how the persona speaks that tells all that is needed; "" where nothing is, most of the time."""
    tables = table("descriptions")
    if manner_told:
        needed = needed - {"manner"}
    if not needed and rng.random() < 0.6:
        return ""
    wordings = tables["ways"] if "manner" not in needed else tables["mannerly"]
    told = [len(needed & told_by(wording)) for wording in wordings]
    return fill_any([w for w, count in zip(wordings, told) if count == max(told)], template_values(p), rng)


def opening(p: Persona, rng: Rng) -> str:
    """What the persona says first."""
    return choose_words(rng.choice(table("descriptions")["openings"]), rng).format_map(template_values(p))
