"""Plain English beyond the personas: tiny tales, and things that are true."""
from tiny.language.facts import kinds, profile
from tiny.language.personas import random_persona, template_values
from tiny.language.templates import Rng, capital, fill_any, table, with_article


def story(rng: Rng) -> str:
    """Two to four sentences: a tiny tale, things that are true, or a few facts about somebody."""
    p, form = random_persona(rng), rng.random()
    if form < 0.6:
        people, values = table("people"), template_values(p)
        found = f"{rng.choice(people['treasure_adj'])} {rng.choice(people['treasures'])}"
        values["a_thing"] = with_article(found)
        # within a tale, any sentence of one part may follow any of the part before
        parts = [capital(fill_any(part, values, rng)) for part in rng.choice(table("tales")["tales"])]
        return " ".join(parts[:rng.choice((3, 4, 4, 4))])
    if form < 0.8:
        return " ".join(rng.sample(table("tales")["truths"], rng.randint(2, 4)))
    return profile(p, rng, rng.sample(kinds(p), rng.randint(3, 4)))
