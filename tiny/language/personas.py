"""Invented personas: some fifty facts each, put together by chance from the parts in tables/people.json."""
from dataclasses import dataclass, replace
from pathlib import Path

from tiny import world
from tiny.language.templates import Rng, capital, dressed, fill, table, with_article

# Names of the shipped characters, whom no training of the base may meet.
RESERVED = {path.stem.capitalize() for path in (Path(__file__).parent.parent / "originals").glob("*.json")}


@dataclass(frozen=True)
class Persona:
    """One invented character. The looks are values of the tiny world, "" when absent; the rest fit into templates."""
    name: str
    he: str                # pronoun: "he" or "she"
    species: str
    fur: str
    top: str
    top_color: str
    hat: str
    hat_color: str
    eyewear: str
    home: str              # with article: "a red house by the river"
    job: str               # with article: "a baker at the market"
    likes: str             # what is collected
    dislikes: str
    food: str
    bad_food: str
    drink: str
    fear: str
    refuge: str            # "under the kitchen table"
    friend: str
    friend_species: str    # "a grumpy gull"
    pet: str               # "a lazy snail"
    pet_name: str
    hobby: str             # gerund: "painting boats"
    instrument: str
    play: str              # "very badly"
    habit: str             # gerund
    treasure: str
    dream: str             # infinitive without "to"
    age: str
    birthday: str          # "on a snowy night"
    color: str
    number: str
    day: str
    custom: str            # "pancake day"
    elder: str
    skill: str             # infinitive without "to"
    rival: str
    rival_species: str
    loot: str              # what the rival steals, plural
    bed: str               # "in a hammock under the roof"
    lullaby: str           # gerund: how to fall asleep
    weather: str
    thing: str             # something owned that has a name
    thing_name: str
    steps: str             # how many
    part: str              # of what, in the home: "windows"
    catchphrase: str
    nickname: str          # for the user
    manner: str            # of speech, a key of tables/manners.json


LOOKS = ("species", "fur", "top", "top_color", "hat", "hat_color", "eyewear")
COVER = {"frog": "skin", "penguin": "feathers", "owl": "feathers", "robot": "metal", "girl": "hair", "boy": "hair"}
BEING = {"robot": "machine", "girl": "person", "boy": "person"}          # all others are animals, covered with fur


def random_name(rng: Rng, he: str, others: tuple[str, ...] = ()) -> str:
    """A name for a "he" or a "she". Half of the names are invented, so that an unknown name is nothing new."""
    people = table("people")
    while True:
        invented = rng.choice(people["starts"]) + rng.choice(people["ends"])
        common = rng.choice(people["boys"] if he == "he" else people["girls"])
        name = invented if rng.random() < 0.5 else common
        if name not in others and name not in RESERVED:
            return name


def random_persona(rng: Rng) -> Persona:
    species = rng.choice(list(world.SPECIES))
    he = {"girl": "she", "boy": "he"}.get(species) or rng.choice(("he", "she"))
    tops = [top for top in world.TOPS if he == "she" or top != "dress"]
    look = world.random_scene(rng, species=species, top=rng.choice(tops))
    looks = {field: getattr(look, field) for field in LOOKS}
    name = random_name(rng, he)
    friend = random_name(rng, rng.choice(("he", "she")), (name,))
    values = random_values(rng, species) | {"friend": friend}
    return Persona(name=name, he=he, **looks, **{field: fill(value, {}, rng) for field, value in values.items()})


def random_values(rng: Rng, species: str) -> dict[str, str]:
    """Everything but name and looks, as templates."""
    people = table("people")

    def one(*names: str) -> str:
        """A word from each table, joined."""
        return " ".join(rng.choice(people[name]) for name in names)

    def sometimes(chance: float, text: str) -> str:
        return f" {text}" if rng.random() < chance else ""

    animals = [animal for animal in people["animals"] if animal != species]
    part = one("parts")
    most = 120 if part in ("stairs", "roof tiles") else 20
    cry = one("cry_a")
    color = rng.choice((one("colors"), f"{one('color_adj')} {rng.choice(people['colors'][:10])}", one("color_names")))
    return {
        "home": f"{with_article(one('sizes'))} {one('homes', 'where')}",
        "job": f"{with_article(one('jobs'))} {one('job_where')}",
        "likes": one("like_adj", "like_things"), "dislikes": one("dislike"),
        "food": one("food_adj", "foods") + sometimes(0.5, one("toppings")),
        "bad_food": one("bad_adj", "bad_foods"),
        "drink": one("drink_adj", "drinks") + sometimes(0.5, one("drink_with")),
        "fear": one("fears"), "refuge": one("refuges"),
        "friend_species": f"{with_article(one('moods'))} {rng.choice(animals)}",
        "pet": f"{with_article(one('moods'))} {one('pets')}", "pet_name": one("pet_names"),
        "hobby": one("hobbies"), "instrument": f"{with_article(one('instrument_adj'))} {one('instruments')}",
        "play": one("play"), "habit": one("habits"),
        "treasure": f"{with_article(one('treasure_adj'))} {one('treasures')}" + sometimes(0.6, one("treasure_from")),
        "dream": one("dreams"), "age": one("ages"), "birthday": one("birthdays"), "color": color,
        "number": str(rng.choice((rng.randint(2, 12), rng.randint(2, 100)))),
        "day": one("days"), "custom": one("customs"), "elder": one("elders", "elder_names"), "skill": one("skills"),
        "rival": one("rival_titles", "rival_names"), "rival_species": with_article(rng.choice(animals)),
        "loot": one("loot"), "bed": one("beds"), "lullaby": one("lullabies"), "weather": one("weathers"),
        "thing": one("things"), "thing_name": one("thing_names"), "part": part, "steps": str(rng.randint(2, most)),
        "catchphrase": one("cries").format(A=cry, a=cry.lower(), b=one("cry_b")),
        "nickname": one("nicks") if rng.random() < 0.4 else one("nick_adj", "nicks"),
        "manner": rng.choice(list(table("manners"))),
    }


def unheard(p: Persona, nouns: list[str], rng: Rng) -> Persona:
    """The same persona with every other fact made of any nouns, so that no list learned by heart helps: whoever is asked
    must look into the description."""
    def noun(ending: str = "") -> str:
        return rng.choice(nouns) + ending

    def two(ending: str = "") -> str:
        return noun() if rng.random() < 0.5 and not ending else f"{noun()} {noun(ending)}"

    name = capital(noun())
    values = {
        "home": f"{with_article(two())} {rng.choice(('by', 'behind', 'under', 'above', 'near'))} the {noun()}",
        "job": f"{with_article(noun())} {rng.choice(('maker', 'keeper', 'seller', 'painter', 'driver'))}",
        "likes": two("s"), "dislikes": two("s"), "food": two(), "bad_food": two(), "drink": f"{noun()} "
        + rng.choice(("tea", "juice", "milk", "water")), "fear": two("s"), "refuge": f"behind the {two()}",
        "friend": name, "friend_species": with_article(two()), "pet": with_article(two()), "pet_name": capital(noun()),
        "instrument": with_article(two()), "treasure": with_article(two()), "bed": f"on {with_article(two())}",
        "dream": f"see {with_article(two())}", "elder": f"Aunt {capital(noun())}", "rival": f"Mister {capital(noun())}",
        "rival_species": with_article(noun()), "loot": noun("s"), "thing_name": capital(noun()),
        "nickname": noun(), "catchphrase": f"{capital(noun())} and {noun('s')}!", "color": f"{noun()} red"}
    return replace(p, **{field: value for field, value in values.items() if rng.random() < 0.5})


def template_values(p: Persona) -> dict[str, str]:
    """Everything that a template may name: the fields, pronouns, and values with an article or a capital."""
    his, him = ("his", "him") if p.he == "he" else ("her", "her")
    cover = COVER.get(p.species, "fur")
    a_species = with_article(p.species)
    verb, _, rest = p.dream.partition(" ")
    values = dict(vars(p))
    values.update(
        n=p.name, his=his, him=him, He=capital(p.he), His=capital(his),
        cover=cover, being=BEING.get(p.species, "animal"), a_species=a_species,
        a_look=f"{a_species} with {p.fur} hair" if cover == "hair" else with_article(f"{p.fur} {p.species}"),
        a_top=dressed(p.top, p.top_color), a_hat=dressed(p.hat, p.hat_color), a_manner=with_article(p.manner),
        dream_ing=f"{table('people')['gerunds'][verb]} {rest}", friend_kind=p.friend_species.split()[-1],
        pet_kind=p.pet.split()[-1], rival_kind=p.rival_species.split()[-1])
    for field in list(values):
        values[f"{field}_cap"] = capital(values[field])
    for field in ("a_species", "a_top", "likes", "dislikes", "food", "drink", "fear", "refuge", "bed", "age", "color",
                  "pet", "hobby", "weather"):
        values[capital(field)] = values[f"{field}_cap"]
    return values
