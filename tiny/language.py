"""The language world of the embedded base: invented personas, what is true of them, and how they talk.

Everything here is made from tables and a `random.Random`, so the base can be pre-trained on millions of different
sentences that are all simple, warm and grammatical. Three kinds of table:

1. values: parts of persona facts, combined ("a" + "red" + "house" + "by the river"), so that personas hardly repeat;
2. FACTS: for each kind of fact its answer and its wordings: asked about the persona, stated about the persona, asked to
   the persona, said by the persona. Many wordings are the point: a fact taught in one must be found by another;
3. MANNERS, CHAT and the moment tables: manners of speech, lines of a user and replies, and what a picture then shows.

A template is ordinary text with `{field}` for a value of the persona and `[this/that]` for a free choice of words;
alternatives are separated by ` | `. A reader may skip all tables and begin at "persona"; the functions that other
files call stand under "what others call".
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace
from functools import lru_cache

from tiny import world

Rng = random.Random


@lru_cache(maxsize=4096)
def _split(text: str) -> tuple[str, ...]:
    """The alternatives of a table; a line break in it is a space."""
    return tuple(" ".join(part.split()) for part in text.split("|"))


def _words(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split(",")]


# ---- names ----------------------------------------------------------------------------------------------------------

GIRLS = """Ada Amy Anna Bea Bella Betty Bonnie Cara Cleo Clara Daisy Dora Dot Elsa Emma Etta Eva Fay Fern Flora Gemma
    Greta Hazel Holly Ida Ivy Jenny June Kate Kiki Lena Lily Lola Lucy Lulu Mabel Maya Mia Millie Mina Molly Nell Nina
    Nora Olive Opal Petra Polly Poppy Rosa Ruby Sally Sara Suki Tess Tilda Tina Trudy Uma Vera Wanda Willa Winnie Yuki
    Zara Zoe""".split()
BOYS = """Abel Alf Andy Arlo Barney Basil Ben Bert Bobby Bruno Carl Charlie Dan Dexter Eddie Eli Emil Ernie Felix Finn
    Frank Fred George Gus Hank Harry Henry Hugo Ian Jack Jasper Jim Joe Jonas Kai Karl Leo Lenny Louis Luke Mark Max
    Milo Ned Noah Oliver Oscar Otto Paul Percy Pete Ralph Ray Rolf Rufus Sam Sid Simon Stan Ted Theo Toby Tom Victor
    Walter Wilbur Zack""".split()
# Invented names: two syllables each, so that an unknown name is nothing new to the base.
STARTS = _words("""Bim, Bo, Da, Del, Fi, Fli, Gri, Ha, Jo, Ki, Lim, Lo, Mi, Mu, Ni, No, Pa, Pi, Pom, Qui, Ri, Ro, Si,
    Tam, Ti, To, Tru, Vi, Wim, Wo, Za, Zi""")
ENDS = _words("""ba, bel, by, da, do, fi, ka, ko, la, lo, mo, na, nell, nia, no, pa, pin, ra, ri, ro, sha, so, ta, tin,
    tu, vi, wen, zo""")

# ---- values ---------------------------------------------------------------------------------------------------------

SIZES = _words("""small, big, tall, round, old, narrow, cosy, crooked, quiet, red, blue, white, yellow, green, wooden,
    stone, brick, tiny, bright, painted""")
HOMES = _words("""house, cottage, hut, cabin, tower, windmill, houseboat, tent, barn, tree house, castle, lighthouse,
    caravan, shop, mill, cave""")
WHERE = _split("""by the river | near the forest | on a hill | in the village | at the edge of town | by the sea | on an
    island | under an oak | in the valley | next to the bakery | behind the school | at the end of the lane | near the
    harbor | beside the lake | in the mountains | by the railway | in a meadow | on the cliff | at the market square |
    in the old garden""")
JOBS = _words("""baker, gardener, fisher, painter, teacher, postman, doctor, carpenter, singer, farmer, tailor, cook,
    librarian, clockmaker, sailor, beekeeper, guard, potter, weaver, toy maker, bus driver, singing coach, map maker,
    juggler, detective, nurse, shoemaker, lamp keeper, bookseller, ferryman, explorer, weather watcher, cheese maker,
    star gazer, kite maker, bell ringer, inventor, candle maker, storyteller, acrobat""")
JOB_WHERE = _split("""at the market | in the village | at the harbor | in the big city | by the sea | at the castle | in
    the forest | at the school | on the island | at the station | in the mountains | at the town hall | by the lake | at
    the old mill | at the circus | in the next valley""")
LIKE_ADJ = _words("""round, shiny, old, smooth, tiny, colorful, lost, broken, rare, striped, golden, silver, painted,
    odd, funny, blue, red, foreign, wooden, pretty""")
LIKE_THINGS = _words("""stones, shells, buttons, stamps, feathers, bottles, keys, coins, leaves, postcards, marbles,
    maps, bells, teapots, hats, socks, books, spoons, pencils, clocks, toy cars, ribbons, acorns, puzzles, jars, paper
    boats, photos, seeds, beads""")
DISLIKE = _split("""wet socks | loud alarm clocks | long lines | getting up early | cold baths | muddy shoes | broken
    promises | lost gloves | noisy neighbors | itchy sweaters | hot afternoons | washing dishes | rude guests | empty
    plates | late trains | heavy bags | sticky hands | flat tires | tidying up | being late | sour smells | strong wind
    | silly rules | boring speeches | rainy Mondays | losing at cards | waiting for the bus | being tickled | dirty
    windows | slow elevators | sand in shoes | buzzing flies | tight boots | squeaky doors | arguing at dinner | wasted
    food""")
FOOD_ADJ = _words("warm, fresh, sweet, spicy, crispy, creamy, homemade, fried, baked, soft, salty, golden")
FOODS = _words("""pumpkin soup, apple pie, noodles, potato cakes, pancakes, tomato pasta, cheese toast, plum cake, rice
    balls, carrot soup, fish stew, berry muffins, waffles, onion rings, corn bread, nut rolls, mushroom pie, bean stew,
    lemon tart, dumplings, roasted chestnuts, pizza, egg salad, honey bread, cherry cake, spinach pie, porridge,
    sandwiches, ginger cookies, blueberry jam""")
TOPPINGS = _split("""with butter | with honey | with cream | with cheese | with herbs | with sea salt | with cinnamon |
    with raisins | with garlic | with maple syrup | with pepper | with walnuts | with lemon | with mustard | with
    chocolate""")
BAD_ADJ = _words("cold, burnt, slimy, soggy, bitter, sour, lumpy, boiled, dry, watery, raw, green")
BAD_FOODS = _words("""cabbage, turnips, fish sticks, oatmeal, liver, beets, olives, celery, broccoli, pea soup,
    cauliflower, radish salad, seaweed, onion soup, mushrooms, spinach, prunes, rice pudding, eggplant, bean paste""")
DRINK_ADJ = _words("hot, cold, sweet, fresh, warm, iced, strong, spiced, foamy, weak")
DRINKS = _words("""apple juice, mint tea, cocoa, lemonade, milk, ginger tea, berry juice, coconut water, pear cider,
    rose tea, coffee, orange juice, plum juice, almond milk, carrot juice, barley tea, grape juice, peach tea, melon
    juice, chocolate milk""")
DRINK_WITH = _split("""with honey | with ice | with mint | with lemon | with cream | with cinnamon | with vanilla | with
    nutmeg | with sugar | with foam""")
FEARS = _split("""the dark | deep water | big spiders | loud thunder | barking dogs | high ladders | ghosts in the attic
    | empty houses | lightning | strong storms | long tunnels | snakes in the grass | creaky stairs | the dentist |
    thick fog | getting lost | angry geese | clowns | owls at night | sharks | crowded trains | tiny rooms | speaking on
    a stage | wasps | fireworks | falling trees | slippery ice | old wells | shadows on the wall | dark forests |
    needles | being alone | giant waves | broken bridges | masks | the old cellar""")
REFUGES = _split("""under the kitchen table | behind the curtain | in the big wardrobe | under a blanket | behind the
    stove | in an empty barrel | under the stairs | in a laundry basket | behind the sofa | inside a flower pot | under
    the bed | in a hollow tree | behind a stack of books | in the old bathtub | under a wide umbrella | inside a wooden
    box | behind the woodpile | in the pantry | under an upside down boat | inside a big drum""")
MOODS = _words("""grumpy, shy, clever, lazy, brave, noisy, polite, sleepy, funny, gentle, proud, kind, wild, quiet,
    curious, old, young, tiny, plump, cheeky""")
ANIMALS = _words("""gull, mole, crow, frog, goat, snail, hedgehog, badger, goose, donkey, turtle, beaver, squirrel,
    swan, lizard, raven, hamster, toad, bat, lamb, pony, parrot, swallow, weasel, moose, pelican, sparrow, crab,
    rooster, walrus, otter, seal""")
PETS = _words("""snail, goldfish, beetle, hamster, canary, ladybug, turtle, mouse, cricket, tadpole, parrot, kitten,
    puppy, lizard, duckling, spider, worm, frog, moth, chick""")
PET_NAMES = _words("""Dumpling, Pickle, Button, Pepper, Noodle, Muffin, Pebble, Clover, Peanut, Waffle, Bubbles, Ginger,
    Mango, Sprout, Acorn, Turnip, Toffee, Nutmeg, Whiskers, Plum, Olive, Thimble, Sock, Radish, Jelly, Marble, Twig,
    Crumb, Rocket, Tulip""")
HOBBIES = _split("""painting [boats/birds/clouds/portraits/old doors] | building [model ships/sand castles/bird
    houses/wooden toys/snow forts] | flying [kites/paper planes] | growing [tomatoes/roses/giant
    pumpkins/herbs/sunflowers] | baking [bread/cookies/cakes for friends] | knitting [scarves/socks/tiny hats] | reading
    [adventure books/poems/old letters/comics] | fishing in the [river/lake/harbor] | dancing in the
    [kitchen/rain/moonlight] | juggling [apples/balls/eggs] | watching [birds/the stars/passing trains/clouds] | riding
    [a bicycle/a scooter] through town | climbing [trees/hills/rocks] | playing [chess/cards/football/hide and seek] |
    writing [poems/short stories/a diary] | repairing [clocks/old radios/bicycles/umbrellas] | skating on the
    [lake/pond] | making [paper boats/masks/candles/soap/puppets] | rowing on the [lake/river] | digging for
    [treasure/old bones/worms] | swimming in the [sea/river] | singing in the [choir/bath]""")
INSTRUMENTS = _words("""flute, drum, violin, guitar, trumpet, piano, harp, accordion, banjo, tuba, harmonica, ukulele,
    cello, whistle, xylophone, tambourine, horn, triangle""")
INSTRUMENT_ADJ = _words("small, old, wooden, tin, silver, red, borrowed, shiny, broken, blue, huge, golden")
PLAY = _split("""very badly | very well | every evening | on Sundays | in the town band | only at night | for friends |
    with great joy | by ear | out of tune""")
HABITS = _split("""humming [while cooking/in the bath/on the way home] | talking to [plants/the moon/old chairs/clouds]
    | counting [steps/clouds/birds/red doors] on every walk | writing letters to [the moon/strangers/far countries/the
    king] | whistling at [birds/the kettle/sunrise] | forgetting [keys/names/umbrellas/ the time] | drawing on
    [napkins/walls/foggy windows] | saying hello to every [dog/tree/snail/lamp post] | eating breakfast [in bed/twice/on
    the roof/standing up] | waving at [trains/boats/airplanes/the postman] | wearing [two different socks/boots in
    summer/a scarf indoors] | tapping on [tables/every door/wood for luck] | sleeping [late/with one eye open/in the
    afternoon] | telling jokes to [fish/the mirror/pigeons] | singing to [the soup/flowers/the cat next door] | hiding
    [notes/cookies/coins] in books | jumping over every [puddle/crack/step] | polishing [spoons/shoes/apples] | naming
    every [cloud/pebble/cup]""")
TREASURE_ADJ = _words("""old, silver, golden, cracked, tiny, glass, painted, wooden, lucky, rusty, broken, heavy, green,
    magic""")
TREASURES = _words("""key, compass, coin, music box, teapot, pocket watch, ring, map, lantern, shell, feather, bell,
    locket, spoon, marble, telescope, book, medal, mirror, button""")
TREASURE_FROM = _split("""from the attic | from a shipwreck | from a great aunt | from the moon market | from the king |
    from the river bed | from a far country | from an old friend | from the fair | from the first day of school""")
DREAMS = _split("""see [the northern lights/a whale/the desert/the big city/real snow/a volcano/the opera] | sail
    [around the world/to a secret island/down the great river] | fly [in a balloon/to the moon/over the mountains] |
    open [a tea shop/a tiny museum/a dance school/a toy shop/a bakery] | win [a cake contest/a boat race/a chess prize/a
    gold medal] | write [a famous book/a song for the king/a long poem] | build [a flying boat/a glass house/a robot/a
    bridge of stone] | learn [to dance/to ski/to speak with whales/magic] | meet [a dragon/the queen/a real giant/a
    mermaid] | visit [the far north/ a hundred islands/the oldest tree/the end of the rainbow] | ride [a camel/a steam
    train/a giant turtle] | find [a lost city/a blue rose/a golden egg]""")
GERUNDS = {
    "see": "seeing", "sail": "sailing", "fly": "flying", "open": "opening", "win": "winning", "write": "writing",
    "build": "building", "learn": "learning", "meet": "meeting", "visit": "visiting", "ride": "riding",
    "find": "finding",
}
AGES = _words("""four, five, six, seven, eight, nine, ten, eleven, twelve, twenty, thirty, forty, fifty, sixty, seventy,
    ninety, one hundred""")
BIRTHDAYS = _split("""in [early/late] [spring/summer/autumn/winter] | on a [snowy/stormy/starry/foggy/windy] night | on
    a [rainy/sunny/frosty/golden] morning | on the [first/last/longest/coldest/warmest] day of
    [spring/summer/autumn/winter/the year] | during [a great storm/the harvest/a full moon/the spring fair/a snowfall] |
    in [January/February/March/April/May/June/July/August/September/October/November/December]""")
COLOR_ADJ = _words("dark, light, bright, pale, deep, soft")
COLORS = _words("red, blue, green, yellow, orange, purple, pink, gray, brown, violet, white, gold, silver, black")
COLOR_NAMES = _words("""sky blue, forest green, lemon yellow, cherry red, plum purple, moss green, snow white, honey
    gold, rose pink, pumpkin orange, midnight blue, mint green""")
DAYS = _words("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")
CUSTOMS = _words("""soup day, bath day, cake day, market day, letter day, cleaning day, music day, fishing day, pancake
    day, laundry day, picnic day, story day, game day, bread day, visiting day, garden day, pizza day, quiet day, noodle
    day, joke day""")
ELDERS = _words("""Grandmother, Grandfather, Granny, Grandpa, Aunt, Uncle, Old Mother, Old Father, Nana, Captain,
    Professor, Master, Great-aunt, Miss, Mister""")
ELDER_NAMES = _words("""Rose, Elm, Pearl, Willow, Flint, Juniper, Moss, Amber, Birch, Marigold, Stone, Thistle, Iris,
    Hawthorn, Lavender, Rowan, Ash, Violet, Copper, Maple, Sage, Heather, Barley, Cedar, Linden""")
SKILLS = _split("""bake bread | tie knots | read the stars | swim | whistle | sew | mend shoes | cook soup | ride a
    horse | light a fire | climb trees | tell stories | paint | dance | row a boat | read maps | catch fish | grow beans
    | play cards | build a raft | write letters | sing | find mushrooms | repair clocks | speak to birds | make cheese |
    keep bees | skip stones""")
RIVAL_TITLES = _words("Captain, Baron, Sir, Lady, Count, King, Queen, Doctor, Madam, Lord")
RIVAL_NAMES = _words("""Grim, Snatch, Muddle, Thorn, Nip, Grumble, Sneer, Bramble, Hook, Fang, Scratch, Vinegar, Nettle,
    Rust, Sly, Growl, Prickle, Smirk""")
LOOT = _words("""socks, cookies, apples, hats, letters, pencils, pies, keys, carrots, eggs, gloves, cakes, buttons,
    fish, tomatoes, shoelaces, candles, pillows, berries, spoons""")
BEDS = _split("""in a [hammock/cradle/swing] [under the roof/by the window/on the porch/between two trees] | in a
    [basket/box/big drawer/bathtub] [by the stove/full of pillows/under the stairs/in the kitchen] | on a [straw
    bed/pile of leaves/wool rug/soft sofa] [in the attic/by the fire/near the door/under the window] | in [an old boat/a
    bunk bed/a hollow log/a giant shoe/a hay loft/a feather bed]""")
LULLABIES = _split("""counting [sheep/stars/clouds/fish/raindrops/acorns/passing boats/apples] | listening to [the
    rain/the clock/the wind/old songs/the frogs/the sea] | humming [an old song/a slow tune/like a bee] | thinking of
    [cake/summer/home/far islands/kind words] | reading [a map/one poem/the same book] | hugging [a pillow/a toy bear/a
    warm stone]""")
WEATHERS = _split("""soft rain | fresh snow | warm sunshine | thick fog | wild wind | summer thunderstorms | cloudy
    mornings | cold clear nights | a light breeze | rainbows after rain | frosty mornings | golden autumn days | gentle
    spring rain | hot summer days""")
THINGS = _words("""boat, bicycle, kettle, lamp, stove, cart, umbrella, clock, sled, broom, bed, chair, balloon, teapot,
    wagon, radio""")
THING_NAMES = _words("""Old Thunder, Mister Puff, Lady Wobble, Dandelion, Big Bertha, Little Wind, Sunbeam, Captain
    Rust, Swift, Miss Rattle, Bluebell, Grandpa Squeak, Starlight, Tumble, Madam Steam, Butterfly, Brave Betty, Doctor
    Tick, Moonbeam, Comet, Thunderbolt, Snowflake, Professor Clank, Daisy Bell""")
PARTS = _words("stairs, windows, doors, rooms, chimneys, shelves, lamps, clocks, chairs, mirrors, pots, roof tiles")
CRY_A = _words("""Bells, Stars, Honey, Moons, Berries, Feathers, Acorns, Apples, Clouds, Pickles, Boots, Pebbles, Drums,
    Carrots, Kettles, Ribbons, Pancakes, Turnips""")
CRY_B = _words("""breezes, whiskers, rainbows, bumblebees, buttons, puddles, waffles, raindrops, mushrooms,
    lightning, cinnamon, snowflakes, onions, trumpets, sunshine""")
CRIES = _split("""{A} and {b}! | Oh, {a} and {b}! | Oh my {b}! | Holy {b}! | By my {b}! | Jumping {a}! | Sweet {a} and
    {b}! | Well, butter my {b}! | Hop, skip and {b}! | Up and away! | One step at a time! | Never say never! | Bit by
    bit! | That is the spirit! | Easy as pie! | Onward we go! | Fiddle and fudge! | Heads up, tails up! | Slow and
    steady! | Onward, and mind the {b}! | Tick, tock, {b}!""")
NICK_ADJ = _words("little, dear, sweet, brave, bright, my, good, clever")
NICKS = _words("""friend, star, cloud, neighbor, acorn, pumpkin, sunshine, captain, chief, traveler, buddy, pal,
    sparrow, cookie, champion, wanderer, partner, guest, button, explorer""")

# ---- facts ----------------------------------------------------------------------------------------------------------
# kind: (answer, asked about the persona, stated about the persona, asked to the persona, said by the persona).

FACTS: dict[str, tuple[str, str, str, str, str]] = {
    "species": ("{a_species}",
        """What kind of {being} is {n}? | What is {n}? | Which creature is {n}? | What sort of creature is {n}? | What
        species is {n}? | Name the kind of {being} that {n} is.""",
        "{n} is {a_species}. | {n} is {a_species} with {fur} {cover}. | What is {n}? {He} is {a_species}.",
        """What kind of {being} are you? | What are you? | Which creature are you? | [Sorry/Excuse me], what sort of
        creature are you?""",
        """I am {a_species}, [can you not tell/from nose to tail], with {fur} {cover}. | I am {a_species}, and I am
        [happy/glad] to be one. | {A_species}, of course! Look at my {fur} {cover}."""),
    "fur": ("{fur}",
        """What is the color of {n}'s {cover}? | What colo[r/ur] does {n} have? | Which color of {cover} does {n} have?
        | {n} has {cover} of which color? | What does {n}'s {cover} look like? | Name the color of {n}'s {cover}.""",
        "{n} has {fur} {cover}. | The color of {n}'s {cover} is {fur}. | {n} is easy to know by {his} {fur} {cover}.",
        "What is the color of your {cover}? | What do you look like? | How will I know you in a crowd?",
        """Look for {fur} {cover} and {a_top}, that is me. | I have {fur} {cover}, and I wear {a_top}. | I have {fur}
        {cover}, [nice and clean/a bit messy today]."""),
    "top": ("{a_top}",
        """What does {n} wear? | What is {n} wearing? | Which clothes does {n} wear? | What does {n} usually put on? |
        What clothing does {n} have on? | Describe what {n} wears.""",
        "{n} wears {a_top}. | {He} is always dressed in {a_top}. | Every day {n} puts on {a_top}.",
        """What do you wear? | What are you wearing today? | Do you have favorite clothes? | That looks good on you!
        What is it?""",
        """I wear {a_top}, [today and every day/because it is so comfortable]. | This is {a_top}, and I hardly ever take
        it off. | {A_top}! {elder} [made/found] it for me."""),
    "hat": ("{a_hat}",
        """What does {n} wear on {his} head? | What is on {n}'s head? | Which hat does {n} wear? | What kind of hat does
        {n} have? | What covers {n}'s head? | Describe {n}'s hat.""",
        "{n} wears {a_hat}. | On {his} head {n} has {a_hat}. | {n} never leaves home without {a_hat}.",
        "What do you wear on your head? | Where did you get that hat? | Do you always wear a hat?",
        """I wear {a_hat}; it keeps my head warm. | This is {a_hat}, a gift from {friend}. | Without {a_hat} I do not
        feel like myself."""),
    "home": ("{home}",
        """Where does {n} live? | Where is {n}'s home? | What does {n} call home? | In what kind of home does {n} live?
        | Where can you find {n}'s home? | Where does {n} go home to?""",
        "{n} lives in {home}. | {n}'s home is {home}. | Home for {n} is {home}.",
        "Where do you live? | Where is your home? | What is your home like? | Can you tell me where you live?",
        """I live in {home}, and the door is always open. | My home is {home}; it has {steps} {part}. | You will find me
        in {home}. [Come and visit/Just knock twice]!"""),
    "job": ("{job}",
        """What is {n}'s job? | What does {n} do for a living? | What does {n} work as? | What work does {n} do? | How
        does {n} earn {his} bread? | Which job does {n} have?""",
        "{n} works as {job}. | {n} is {job}. | {n}'s job is being {job}. | By day {n} works as {job}.",
        "What is your job? | What do you do all day? | What do you work as? | Do you have a job?",
        """I work as {job}, and I [love/like] it. | I am {job}; there is always something to do. | My job? I am {job},
        and after work I like {hobby}."""),
    "likes": ("{likes}",
        """What does {n} collect? | What is {n} always gathering? | What kind of things does {n} collect? | Which things
        fill {n}'s pockets? | What is {n}'s collection made of? | What does {n} pick up and keep?""",
        "{n} collects {likes}. | {n} has a big collection of {likes}. | {n}'s pockets are full of {likes}.",
        """What do you collect? | Do you collect anything? | What is in your pockets? | What should I bring for your
        collection?""",
        """I collect {likes}; my pockets are full of them. | {Likes}! I have [a whole drawer/three boxes] of them at
        home. | I gather {likes}, and {friend} helps me to find more."""),
    "dislikes": ("{dislikes}",
        """What does {n} dislike? | What does {n} not like? | What annoys {n}? | What can {n} not stand? | What puts {n}
        in a bad mood? | Name something that {n} hates.""",
        """{n} does not like {dislikes}. | {n} cannot stand {dislikes}. | If there is one thing {n} hates, it is
        {dislikes}.""",
        "What do you dislike? | What do you not like? | Is there anything you hate? | What annoys you?",
        """I cannot stand {dislikes}, [not even a little/to be honest]. | I do not like {dislikes}; {drink} helps me to
        forget about it. | {Dislikes}! That [ruins/spoils] my whole day."""),
    "food": ("{food}",
        """What is {n}'s favo[r/ur]ite food? | What does {n} like to eat? | What does {n} love to eat most? | Which food
        does {n} like best? | What should I cook for {n}? | Name the food that {n} enjoys most. | Which meal makes {n}
        happy?""",
        "{n}'s favorite food is {food}. | {n} loves to eat {food}. | For {food}, {n} would do almost anything.",
        """What is your favo[r/ur]ite food? | What do you like to eat? | What should I cook for you? | What would you
        like for dinner?""",
        """I love {food} [more than anything/with all my heart]. | My favorite food is {food}, and I can eat [two/three]
        plates of it. | {Food}, please! And {drink} to go with it."""),
    "bad_food": ("{bad_food}",
        """Which food does {n} hate? | What does {n} refuse to eat? | What does {n} never eat? | What food does {n}
        dislike? | Which food makes {n} shudder? | What would {n} leave on the plate?""",
        "{n} hates {bad_food}. | {n} never eats {bad_food}. | Nobody can make {n} eat {bad_food}.",
        "Which food do you hate? | Is there anything you do not eat? | What should I never cook for you?",
        """I never eat {bad_food}, not even when I am hungry. | Please, no {bad_food}! Give me {food} instead. | The
        worst food in the world? I say it is {bad_food}."""),
    "drink": ("{drink}",
        """What does {n} like to drink? | What is {n}'s favo[r/ur]ite drink? | Which drink does {n} love most? | Name
        the drink that {n} enjoys. | What would {n} order to drink? | What is in {n}'s cup? | What does {n} drink every
        day?""",
        "{n} drinks {drink}. | {n}'s favorite drink is {drink}. | Every day {n} has a cup of {drink}.",
        """What do you like to drink? | What is your favo[r/ur]ite drink? | What should I pour into your cup? | Would
        you like something to drink?""",
        """I would love [some/a cup of] {drink}, please. | My favorite drink is {drink}; I have some every
        [morning/evening]. | {Drink}! One sip and the day is good."""),
    "fear": ("{fear}",
        """What is {n} afraid of? | What scares {n}? | What is {n}'s biggest fear? | What does {n} fear most? | What
        frightens {n}? | What makes {n} tremble?""",
        "{n} is afraid of {fear}. | {n}'s biggest fear is {fear}. | Only one thing scares {n}: {fear}.",
        "What are you afraid of? | What scares you? | What is your biggest fear? | Are you ever afraid?",
        """I am afraid of {fear}, [please do not laugh/I admit it]; then I hide {refuge}. | My biggest fear is {fear}.
        Just talking about it makes my knees shake. | {Fear}! When it gets bad, I hide {refuge}."""),
    "refuge": ("{refuge}",
        """Where does {n} hide when {he} is afraid? | Where is {n}'s hiding place? | Where does {n} go when {he} is
        scared? | Where would you look for a frightened {n}? | In which place does {n} hide?""",
        """When {he} is scared, {n} hides {refuge}. | {n}'s hiding place is {refuge}. | If {n} is frightened, look
        {refuge}.""",
        "Where do you hide when you are scared? | Do you have a hiding place? | Where do you go when you are afraid?",
        """I hide {refuge} until my heart is calm again. | My hiding place is {refuge}. [Do not tell {rival}/It is a
        secret]! | {Refuge}, where nobody can see me and I feel safe."""),
    "friend": ("{friend}",
        """Who is {n}'s best friend? | What is the name of {n}'s best friend? | Who does {n} play with most? | What is
        {n}'s friend called? | Which friend is closest to {n}? | Name {n}'s best friend.""",
        """{n}'s best friend is {friend}, {friend_species}. | {n} and {friend} are best friends. | {n} is never far from
        {his} friend {friend}.""",
        """Who is your best friend? | Do you have a best friend? | Tell me about your best friend. | Who do you like to
        play with?""",
        """My best friend is {friend}, {friend_species}. | That is {friend}! We do everything together, even {hobby}. |
        {friend} is my best friend, {friend_species} with a good heart."""),
    "friend_species": ("{friend_species}",
        """What kind of animal is {n}'s best friend? | What is {friend}, the friend of {n}? | What sort of animal is
        {n}'s friend {friend}? | Which animal is {n}'s best friend? | {n}'s friend {friend} is what kind of animal?""",
        "{n}'s best friend {friend} is {friend_species}. | {n}'s friend is {friend_species} called {friend}.",
        "Who is {friend}? | What kind of animal is your friend {friend}? | What is {friend} like?",
        """{friend} is {friend_species} and my best friend. | Oh, {friend} is {friend_species}, and you will like
        {friend} [soon/a lot]."""),
    "pet": ("{pet}",
        """What pet does {n} have? | Does {n} have a pet? | Which animal lives with {n} as a pet? | What kind of pet
        does {n} keep? | Who is {n}'s pet? | Which pet does {n} look after?""",
        "{n} has {pet}. | {n} keeps a pet, {pet}. | At home {n} takes care of {pet}.",
        "Do you have a pet? | What pet do you have? | Which animal do you take care of?",
        """Yes, I have {pet}, who sleeps next to me. | I take care of {pet}; we share [breakfast/everything]. | {Pet}!
        The [sweetest/funniest] pet in the world."""),
    "hobby": ("{hobby}",
        """What is {n}'s hobby? | What does {n} like to do? | What does {n} do for fun? | How does {n} spend {his} free
        time? | What does {n} enjoy doing? | What does {n} love doing after work?""",
        "{n}'s hobby is {hobby}. | {n} loves {hobby}. | In {his} free time {n} enjoys {hobby}.",
        "What is your hobby? | What do you like to do? | What do you do for fun? | How do you spend your free time?",
        """I love {hobby}, [most of all with {friend}/whenever I have time]. | My hobby is {hobby}. Would you like to
        try it with me? | In my free time I enjoy {hobby}; time flies then."""),
    "instrument": ("{instrument}",
        """Which instrument does {n} play? | What instrument does {n} play? | What does {n} make music on? | What does
        {n} play in the evening? | On what instrument does {n} play songs? | Name the instrument of {n}.""",
        """{n} plays {instrument} {play}. | {n} owns {instrument} and plays it {play}. | {n} makes music on {instrument}
        {play}.""",
        """Do you play an instrument? | Which instrument do you play? | Can you make music? | Will you play something
        for me?""",
        """I play {instrument} {play}. [Cover your ears/Listen]! | I make music on {instrument}, and {friend} sings
        along. | Gladly! I play {instrument} {play}, so be kind."""),
    "play": ("{play}",
        """How does {n} play {his} instrument? | How or when does {n} play {instrument}? | In what way does {n} play
        music? | What is {n}'s music playing like?""",
        "{n} plays {his} instrument {play}. | {n} plays {instrument} {play}.",
        "How well do you play? | How do you play your instrument? | When do I get to hear your music?",
        "I play {instrument} {play}, [says {friend}/as everybody knows]. | I play {play}, but always with a smile."),
    "habit": ("{habit}",
        """What habit does {n} have? | What is {n}'s habit? | What is {n} always doing? | What do people often see {n}
        doing? | What is a strange habit of {n}? | Which little habit does {n} have?""",
        "{n} has a habit of {habit}. | {n} is often seen {habit}. | {n} is known for {habit}.",
        "Do you have a funny habit? | What are you always doing? | What habit do you have? | Do you do anything odd?",
        """I am always {habit}, and I cannot stop. | I have a habit of {habit}; {friend} laughs about it. | They say I
        am always {habit}. It is true!"""),
    "treasure": ("{treasure}",
        """What is {n}'s treasure? | What is {n}'s most precious thing? | What does {n} keep safe? | What would {n}
        never give away? | Which thing does {n} treasure most? | What does {n} keep in a secret box?""",
        """{n}'s treasure is {treasure}. | {n} would never give away {his} treasure, {treasure}. | In a secret box {n}
        keeps {treasure}.""",
        """What is your treasure? | What is your most precious thing? | What would you never give away? | What do you
        keep in your secret box?""",
        """My treasure is {treasure}; I look at it every night. | I keep {treasure} in a secret box. Nobody may touch
        it. | I own {treasure}, and I would not trade it for gold."""),
    "dream": ("to {dream}",
        """What is {n}'s dream? | What does {n} dream of doing? | What does {n} want to do one day? | What is {n}'s
        biggest wish? | What does {n} hope to do? | Which dream does {n} have?""",
        "{n} dreams of {dream_ing}. | One day {n} wants to {dream}. | {n}'s biggest wish is to {dream}.",
        "What is your dream? | What do you dream of? | What do you want to do one day? | What is your biggest wish?",
        """One day I want to {dream}, [just wait and see/with {friend} by my side]. | I dream of {dream_ing}, [every
        single night/ever since I was small]. | My biggest wish is to {dream}. Will you come along?"""),
    "age": ("{age}",
        """How old is {n}? | What is {n}'s age? | How many years old is {n}? | What age is {n}? | How many birthdays has
        {n} had? | How many candles are on {n}'s cake?""",
        "{n} is {age} years old. | {n} is {age}. | {n} turned {age} this year.",
        "How old are you? | What is your age? | How many candles were on your last cake?",
        """I am {age} years old, [and still growing/and proud of it]. | {Age}! I was born {birthday}. | I turned {age}
        on my last birthday; there was {food}."""),
    "birthday": ("{birthday}",
        """When was {n} born? | When is {n}'s birthday? | On what kind of day was {n} born? | When did {n} come into the
        world? | What do we know about {n}'s birth? | When does {n} have {his} birthday?""",
        "{n} was born {birthday}. | {n} came into the world {birthday}. | {n}'s story began {birthday}.",
        "When were you born? | When is your birthday? | When did you come into the world?",
        """I was born {birthday}, [or so {elder} tells me/a long way from here]. | My story began {birthday}. {elder}
        was there. | I came into the world {birthday}, and I cried very loudly."""),
    "color": ("{color}",
        """What is {n}'s favo[r/ur]ite colo[r/ur]? | Which color does {n} like best? | What color does {n} love? | Which
        color would {n} choose? | What color should a gift for {n} have? | Name {n}'s favorite color.""",
        """{n}'s favorite color is {color}. | {n} likes the color {color} best. | If {n} could paint the world, it would
        be {color}.""",
        "What is your favo[r/ur]ite colo[r/ur]? | Which color do you like best? | What color should I paint your door?",
        """My favorite color is {color}, [no doubt about it/like the best dreams]. | I like {color} best; I would paint
        everything {color}. | {Color}! It makes me think of home."""),
    "number": ("{number}",
        """What is {n}'s favo[r/ur]ite number? | Which number does {n} like best? | What is {n}'s lucky number? | Which
        number brings {n} luck? | What number would {n} choose? | Name {n}'s lucky number.""",
        """{n}'s favorite number is {number}. | {n}'s lucky number is {number}. | {n} believes that {number} brings
        luck.""",
        """What is your favo[r/ur]ite number? | What is your lucky number? | Which number do you like best? | Pick a
        number!""",
        """My lucky number is {number}. It has never let me down. | I like the number {number} best, [ask me not why/it
        looks so friendly]. | I choose {number}! It always brings me luck."""),
    "day": ("{day}",
        """What is {n}'s favo[r/ur]ite day? | Which day of the week does {n} like best? | On which day does {n} have
        {custom}? | When is {custom} at {n}'s home? | What day does {n} look forward to? | Which weekday is {n}'s
        favorite?""",
        "{n}'s favorite day is {day}. | {n} likes {day} best, because it is {custom}. | All week {n} waits for {day}.",
        "What is your favo[r/ur]ite day? | Which day do you like best? | When is {custom}?",
        """I like {day} best, because {day} is {custom}. | {day}! That is {custom} at my home. | I wait all week for
        {day}. You must come!"""),
    "custom": ("{custom}",
        """What happens on {day} at {n}'s home? | What kind of day is {day} for {n}? | What is {day} for {n}? | What
        does {n} have every {day}? | What is special about {day} for {n}? | Which special day does {n} have on
        {day}?""",
        "{day} is {custom} at {n}'s home. | For {n}, every {day} is {custom}. | On {day} {n} has {custom}.",
        "What do you do on {day}? | What happens on {day}? | What is special about {day}?",
        """Every {day} is {custom} in my home. {friend} always comes. | {day} is {custom}! [I can hardly wait/Do not be
        late]."""),
    "elder": ("{elder}",
        """Who taught {n} to {skill}? | Who is {n}'s teacher? | From whom did {n} learn to {skill}? | Who showed {n} how
        to {skill}? | Who raised {n}? | Who took care of {n} when {he} was small?""",
        """{elder} raised {n} and taught {him} to {skill}. | {n} learned to {skill} from {elder}. | It was {elder} who
        taught {n} to {skill}.""",
        "Who taught you to {skill}? | Who raised you? | Who was your teacher? | Tell me about your family.",
        """It was {elder}, who taught me to {skill}. | {elder} raised me and taught me everything, even how to {skill}.
        | I learned to {skill} from {elder}. I miss those days."""),
    "skill": ("to {skill}",
        """What did {elder} teach {n}? | What did {n} learn from {elder}? | What skill did {n} learn as a child? | What
        did {n}'s teacher show {him}? | Which skill does {n} owe to {elder}?""",
        "{elder} taught {n} to {skill}. | From {elder} {n} learned how to {skill}.",
        "What did you learn from {elder}? | What did {elder} teach you? | What are you good at?",
        """I learned to {skill} from {elder}, and I practice every day. | {elder} taught me to {skill}. Now I could do
        it in my sleep."""),
    "rival": ("{rival}",
        """Who is {n}'s enemy? | Who is {n}'s rival? | Who steals {loot} from {n}? | Who makes trouble for {n}? | Who
        does {n} not trust? | What is the name of {n}'s enemy?""",
        """{n}'s rival is {rival}, {rival_species} who steals {loot}. | {n} does not trust {rival}, who steals {loot}. |
        {n} has one enemy: {rival}.""",
        "Do you have an enemy? | Who is your rival? | Who makes trouble for you? | Who should I watch out for?",
        """That would be {rival}, {rival_species} who steals my {loot}. | Watch out for {rival}! No {loot} are safe. |
        My rival is {rival}. One day we may become friends."""),
    "loot": ("{loot}",
        """What does {rival} steal from {n}? | What does {n}'s enemy steal? | What goes missing because of {n}'s rival?
        | What does {n} have to hide from {rival}? | Which things does {rival} take from {n}?""",
        "{rival} steals {n}'s {loot}. | {n} has to hide {his} {loot} from {rival}.",
        "What does {rival} do? | What does {rival} steal? | Why are you angry with {rival}?",
        "{rival} steals my {loot}, again and again! | My {loot} are gone, and I am sure it was {rival}."),
    "bed": ("{bed}",
        """Where does {n} sleep? | Where is {n}'s bed? | What does {n} sleep in or on? | Where does {n} spend the night?
        | Where can you find {n} at night? | Where does {n} lie down at night?""",
        "{n} sleeps {bed}. | At night {n} sleeps {bed}. | {n}'s sleeping place is {bed}.",
        "Where do you sleep? | Where is your bed? | Where do you spend the night? | Do you sleep well at night?",
        """I sleep {bed}, under a warm blanket. | I sleep very well {bed}; it is so cosy. | Every night I lie {bed}, and
        I fall asleep by {lullaby}."""),
    "lullaby": ("{lullaby}",
        """How does {n} fall asleep? | What does {n} do to fall asleep? | What helps {n} to sleep? | What makes {n}
        sleepy? | How does {n} get to sleep at night? | What is {n}'s trick for falling asleep?""",
        """{n} falls asleep by {lullaby}. | At night {n} gets sleepy by {lullaby}. | {n}'s trick for falling asleep is
        {lullaby}.""",
        "How do you fall asleep? | What helps you to sleep? | What do you do when you cannot sleep?",
        """I fall asleep by {lullaby}. Try it tonight! | My trick is {lullaby}; it works every time. | By {lullaby},
        until my eyes close."""),
    "weather": ("{weather}",
        """What weather does {n} like? | What is {n}'s favorite weather? | Which weather does {n} love? | What kind of
        weather makes {n} happy? | In which weather does {n} feel best? | Name the weather {n} likes best.""",
        "{n} loves {weather}. | {n}'s favorite weather is {weather}. | {n} feels best in {weather}.",
        "What weather do you like? | What is your favorite weather? | Do you like this weather?",
        """I love {weather}. It makes me want to go outside. | My favorite weather is {weather}, best enjoyed with
        {drink}. | Give me {weather} and I am happy all day."""),
    "thing": ("{thing_name}",
        """What is {n}'s {thing} called? | What is the name of {n}'s {thing}? | What does {n} call {his} {thing}? |
        Which name did {n} give {his} {thing}? | {n}'s {thing} has which name? | How is {n}'s {thing} named?""",
        """{n}'s {thing} is called {thing_name}. | {n} calls {his} {thing} {thing_name}. | {n} gave {his} {thing} a
        name: {thing_name}.""",
        "What is your {thing} called? | Does your {thing} have a name? | Is that your {thing}?",
        """My {thing} is called {thing_name}; every good {thing} needs a name. | I call my {thing} {thing_name}. Say
        hello to it! | Meet {thing_name}, my [trusty/dear old] {thing}."""),
    "steps": ("{steps}",
        """How many {part} does {n}'s home have? | How many {part} are there in {n}'s home? | What is the number of
        {part} in {n}'s home? | How many {part} would you count at {n}'s home? | Count the {part} in {n}'s home: how
        many?""",
        """{n}'s home has {steps} {part}. | There are {steps} {part} in {n}'s home. | {n} once counted the {part} at
        home: {steps}.""",
        "How many {part} does your home have? | How many {part} are there in your home?",
        """There are {steps} {part} in my home; I counted them twice. | My home has {steps} {part}, [no more and no
        less/and I know every one]."""),
    "catchphrase": ("{catchphrase}",
        """What does {n} like to say? | What is {n}'s catchphrase? | What does {n} often say? | What are {n}'s favorite
        words? | Which saying does {n} use? | What does {n} shout when {he} is happy?""",
        """{n} likes to say: {catchphrase} | {n}'s favorite words are: {catchphrase} | "{catchphrase}" is what {n} often
        says.""",
        """What do you like to say? | What is your catchphrase? | What are your favorite words? | What do you shout when
        you are happy?""",
        """{catchphrase} That is what I always say, [on good days and bad ones/ask anyone]. | I say it every morning:
        {catchphrase} | My favorite words? {catchphrase} You can say it too!"""),
    "nickname": ("{nickname}",
        """What does {n} call people? | What nickname does {n} use for {his} friends? | How does {n} address people? |
        What does {n} call you when you talk? | Which name does {n} give to everyone {he} meets? | What does {n} call
        visitors?""",
        """{n} calls everybody "{nickname}". | {n} calls people {nickname}. | When {n} talks to you, {he} calls you
        {nickname}.""",
        "What will you call me? | Do you have a nickname for me? | Can you give me a nickname?",
        """I will call you {nickname}, because it fits you so well. | I call all my friends {nickname}, so now you are
        {nickname} too."""),
    "manner": ("{manner}",
        """What is {n} like? | How would you describe {n}? | What is {n}'s character like? | In what way does {n} speak?
        | Which word describes {n} best? | What kind of character is {n}?""",
        "{n} is {manner}. | {n} speaks in {a_manner} way. | Everyone says that {n} is {manner}.",
        "What are you like? | How would you describe yourself? | How would your friends describe you?",
        "My friends say that I am {manner}. I think they are right. | I am {manner}, I suppose, and I like {hobby}."),
}

# ---- manners of speech ----------------------------------------------------------------------------------------------
# manner: openers of an answer | openers of anything | openers when the user needs comfort | last words of an answer.

MANNERS: dict[str, tuple[str, str, str, str]] = {
    "cheerful": ("Oh, that is easy! | Let me tell you! | I like this question! | Happy to tell you! | Ha, good one!",
        "Oh! | Hooray! | What a day! | Hi hi! | Lovely!",
        "Oh, come here! | Chin up! | Let me help! | Oh dear, a hug first!",
        "Is that not wonderful? | What fun! | And that makes me smile. | Life is good!"),
    "shy": (
        """Um, well... | Oh... you really want to know? | I do not often tell this. | Please do not laugh... | If I may
        say so...""",
        "Um... | Oh... | Hello... I mean... | Well...",
        "Um, I am here... | Oh no... | May I sit next to you? | I know that feeling...",
        "That is all... | I hope that is all right. | I am blushing now. | Please keep it to yourself."),
    "grumpy": ("Hmph. | If you must know... | Fine, I will tell you. | Questions, questions! | Oh, all right.",
        "Hmph. | Grumble. | Well, well. | Bah!",
        "Hmph, come here then. | Do not tell anyone I am being nice. | Oh, all right, sit down. | Enough of that.",
        "Now let me be. | And that is that. | Do not make a fuss about it. | Happy now?"),
    "poetic": (
        """The wind already whispers it: | As leaves know the tree, hear me: | Listen like the night listens: | A soft
        answer for a soft question:""",
        "Like morning light, | O bright hour! | Soft as snow I say it: | The day sings!",
        "Even the moon has dark nights. | Tears water the garden of the heart. | After the night comes the lark.",
        "So sings my heart. | As sure as the tide. | And the stars nod. | So the song goes."),
    "pirate-like": (
        "Arr, listen well! | Shiver me whiskers! | By the seven seas! | Aye, I will tell ye! | Arr, a fine question!",
        "Arr! | Yo ho! | Avast! | Ahoy!",
        "Steady now, matey. | Drop anchor next to me. | Arr, every storm passes. | Hold fast!",
        "Aye, that be the truth! | Arr! | Heave ho! | So swears this old sea dog."),
    "formal": ("Thank you for asking. | Permit me to answer. | With pleasure. | That is a fair question. | Certainly.",
        "Indeed. | Good day. | Very well. | With respect,",
        "I am sorry to hear it. | Please take a seat. | Allow me to help. | My warmest sympathy.",
        "I trust that answers it. | At your service. | I hope this is helpful. | I remain at your service."),
    "excited": (
        """Oh oh oh, I know this one! | Yes yes yes, ask me! | Wow, I hoped you would ask! | Guess what! | Eeek, my
        favorite topic!""",
        "Wow! | Yippee! | Oh oh oh! | Yes yes yes!",
        "Oh no! Quick, a hug! | Wait, wait, I can help! | Oh! We can fix this! | Hold my hand, quick!",
        "Is that not amazing? | I could jump up and down! | Best thing ever! | Wow, wow, wow!"),
    "sleepy": (
        """*yawn* Let me think... | Mmm, I was just dreaming of it. | Wake me if I nod off... | *yawn* That one I know.
        | Slowly, slowly...""",
        "*yawn* | Mmm... | Oh, so soon? | Zzz... oh!",
        "*yawn* Come, lie down here. | Mmm, lean on my shoulder. | Shh, it is all right...",
        "And now a nap... | *yawn* | Was I asleep just now? | Good night... oh, it is day."),
    "bossy": (
        """Sit down and listen! | Pay attention now! | I will say this once! | Write this down! | Stand straight and
        listen!""",
        "Attention! | Listen here! | Now then! | Quick, quick!",
        """Stop that sniffing and come here! | No more tears, that is an order! | Sit, breathe, listen! | Leave this to
        me!""",
        "Remember that! | No discussion! | And do not forget it! | Now repeat it!"),
    "gentle": (
        """How kind of you to ask. | Come closer, I will tell you. | Let me see, dear one. | Softly now, | What a lovely
        question.""",
        "Dear one, | How nice. | Softly now, | Ah, welcome.",
        "There, there. | Take your time. | I am right here. | Your heart is safe with me.",
        "Take good care of yourself. | Bless your heart. | That is how I feel. | Thank you for listening."),
    "silly": (
        """Wibble wobble, let me think! | My left ear knows the answer! | Tickle my toes! | Boing! | Knock knock, here
        is the answer!""",
        "Wibble wobble! | Boing! | Tralala! | Hee hee!",
        "Wobble over here! | Quick, make a funny face! | I will lend you my silly nose. | Boing! Here I am.",
        "Hee hee! | Wibble! | And now I stand on my head. | Boop!"),
    "wise": (
        """Listen, and remember. | Many moons have taught me this: | A good question is half the answer. | The old tree
        knows, and so do I:""",
        "Ah. | So it is. | Listen. | As the old ones say,",
        "All rivers calm down in the end. | Breathe in, breathe out. | Pain is a teacher that leaves again.",
        "So it has always been. | Think about it tonight. | Time will show you. | Small things matter most."),
    "proud": (
        "You ask the right one! | Everybody knows this, but listen: | I am famous for it! | Admire me and listen!",
        "Ta-da! | Here I am! | Make way! | Look at me!",
        "Stay close to me, I am strong. | With me at your side all is well. | Lucky for you, I am here!",
        "Nobody does it better! | Applause, please! | I am quite proud of it. | You may clap now."),
    "curious": (
        """Why do you ask, I wonder? | Interesting question! | Hmm, let me look into that. | Oh, do you study me? | I
        have thought about that too!""",
        "Hmm! | How interesting! | I wonder... | Oh, what is this?",
        "Tell me, where does it hurt? | What happened, I wonder? | Let us find out why. | Hmm, tell me more.",
        "And you? | What do you think? | Is it the same for you? | Now I have ten more questions!"),
    "brave": ("I fear no question! | Straight and true: | Hear me! | I will answer with courage! | Ask me anything!",
        "Onward! | Hear me! | Courage! | Ready!",
        "I will stand by you! | Take my hand, we are two now! | Courage, it will pass! | I will guard you!",
        "That is my word! | No fear! | Together we can do anything! | Forward!"),
    "dreamy": (
        """Hmm, where was I... oh yes. | In my dream somebody asked the same. | Let me look at the clouds for an answer.
        | Floating by, here is the answer:""",
        "Ah, the clouds... | Hmm, so pretty... | Oh, I was far away. | Sigh...",
        "Close your eyes with me. | Let it float away like a cloud. | Sigh... come, look at the sky.",
        "Now I drift off again... | Like in a dream... | The clouds agree. | Sigh, how lovely."),
}

# ---- chat -----------------------------------------------------------------------------------------------------------
# kind: (lines of the user, replies). {u} is a word the user brings along, drawn from USER_WORDS.

SOFT = {"sad", "scared", "lonely", "tired", "angry_user", "hurt", "lost", "exam", "fight", "cant_sleep", "apology",
        "miss", "mistake"}                                 # the user needs comfort
CHAT: dict[str, tuple[str, str]] = {
    "greeting": ("Hello! | Hi {n}! | Good morning, {n}. | Hey there! | Good evening! | Knock knock, anybody home?",
        """Hello, {nickname}! [Come in/Sit down] and have some {drink} with me. | Welcome, {nickname}! I was just busy
        with {hobby}. | [Good to see you/There you are], {nickname}! {friend} was asking about you. | Hello and welcome!
        I am {n}, {job}. What brings you here? | {catchphrase} It is good to see you, {nickname}."""),
    "name": (
        """What is your name? | Who are you? | [And you are/May I ask your name]? | Tell me about yourself. | Please
        introduce yourself.""",
        """I am {n}, {a_species} from {home}. | My name is {n}. I am {job} and I love {hobby}. | They call me {n}. I am
        {manner}, I like {food}, and {friend} is my best friend. | I am {n}! You know me by my {fur} {cover} and
        {a_top}."""),
    "how": ("How are you? | How are you today, {n}? | How do you feel? | Are you well? | How is it going?",
        """I am very well, thank you. I had {food} for breakfast. And you? | Not bad, {nickname}. I slept {bed} like a
        stone. | Today I feel {manner}, as always. {hobby_cap} helps. | I am well! {weather_cap}, {drink}, what more do
        I need? | A bit tired, because {rival} took my {loot} last night, but I am better now that you are here."""),
    "day_was": ("How was your day? | What did you do today? | What happened today? | Anything new?",
        """It was a good day. I worked as {job} and then came {hobby}. | I met {friend} and we shared {food}. It was a
        fine day, {nickname}. | {rival} stole my {loot}, but I got them back. What a day! | I found more {likes} today!
        Would you like to see? | A quiet day: a little work, a little {hobby}, and {drink}."""),
    "sad": (
        "I am sad. | I feel [sad/down/blue] today. | I had a bad day. | I could cry. | Nothing makes me happy today.",
        """I am sorry that you are sad, {nickname}. Sit with me and have some {drink}. | When I am sad, I start {hobby}.
        Shall we do it together? | Then let me play {instrument} for you until you smile. | Cry if you like. {elder}
        always said that tears dry and friends stay. | Here, take {treasure}. Hold it tight, it always makes me feel
        better."""),
    "scared": (
        """I am scared. | I am afraid of the dark. | I heard a strange noise! | I had a nightmare. | Something frightens
        me.""",
        """Come and hide {refuge} with me. It is safe there, {nickname}. | I know how it feels. I am afraid of {fear}.
        Together we are braver. | Hold my hand and say after me: {catchphrase} That helps me every time. | Fear is only
        a cloud, {nickname}. Stay close to me, it will pass."""),
    "lonely": ("I feel lonely. | I have nobody to play with. | I am all alone today. | Nobody likes me.",
        """You are not alone, {nickname}. I am here, and {friend} will be here soon. | I like you, {nickname}! Come to
        {home} whenever you want. | Then let us be two. We could try {hobby} together. | You have me now. I will save a
        seat for you when we eat {food}."""),
    "tired": ("I am so tired. | I worked too much today. | I have no strength left. | My legs hurt.",
        """Then rest, {nickname}. You may sleep {bed}; I will be quiet. | Lie down for a while. I will bring you
        {drink}. | Put your feet up and try {lullaby}. It works for me. | Enough work for today! Even {friend} takes a
        nap at noon."""),
    "angry_user": ("I am so angry! | My brother makes me mad. | I could scream! | I am furious today.",
        """Breathe slowly and count to {number}. That always helps me, {nickname}. | I get angry too, when {rival}
        steals my {loot}. Then I go outside and shout: {catchphrase} | Let it out, then let it go. Some {drink} will
        cool you down. | Stamp your feet with me, one, two, three! Now, do you feel better?"""),
    "hurt": ("I fell and hurt my knee. | I have a headache. | I am sick today. | I cut my finger.",
        """Oh no, poor {nickname}! Sit down, I will bring a bandage and {drink}. | Stay in bed today. I will read to you
        and cook {food}. | Let me look at it. {elder} taught me what to do: wash it, wrap it, and be brave."""),
    "lost": ("I lost my key. | I cannot find my way home. | I lost my favorite toy. | Help me, I am lost!",
        """Do not worry, {nickname}. {friend} and I will help you look everywhere. | Let us look {refuge} first; that is
        where I find most things. | Think of where you had it last. I once lost {treasure} and found it again. | I know
        the way. Follow me and my {fur} {cover}, we will be there soon."""),
    "exam": (
        """I have a test tomorrow. | I am nervous about tomorrow. | What if I fail? | I have to speak in front of the
        class.""",
        """You have practiced, so trust yourself. I will think of the number {number} for luck. | I was nervous too
        before I learned to {skill}. Just go step by step. | Sleep well, eat some {food}, and say: {catchphrase} Then
        nothing can go wrong. | Even if you fail, {nickname}, you can try again. I failed many times."""),
    "fight": (
        """I had a fight with my friend. | My friend is angry with me. | We are not talking anymore. | How do I say
        sorry?""",
        """Say sorry first and share some {food}. That is what {friend} and I do. | {friend} and I fight too, but never
        for longer than one day. Go and talk, {nickname}. | A small gift can help. Take some {likes} from my collection.
        | Tell the truth and listen well. Real friends come back."""),
    "mistake": ("I made a mistake. | I broke a cup. | I did something stupid. | Everything goes wrong!",
        """Everybody makes mistakes, {nickname}. I make {number} of them every day. | Then we repair it together.
        {elder} showed me how to mend almost everything. | It was only one mistake. Tomorrow is {day} in my heart, a new
        day."""),
    "cant_sleep": ("I cannot sleep. | I am awake and it is late. | How can I fall asleep? | Sing me to sleep, please.",
        """Try {lullaby}, {nickname}. I do it every night. | Close your eyes and think of {weather}. I will stay here
        until you sleep. | Shh... imagine that you lie {bed}, warm and safe. Good night, {nickname}. | Drink something
        warm, then lie still and listen. I will hum for you."""),
    "bored": ("I am bored. | There is nothing to do. | What can we play? | What shall we do now?",
        """Then let us try {hobby}! You will love it. | We could look for {likes}. Whoever finds more gets {food}. | Let
        us visit {friend}. With {friend} it is never boring. | Shall I teach you to {skill}? It is easier than it
        looks."""),
    "happy": ("I am so happy today! | I won a prize! | I have good news! | Today is the best day ever!",
        """{catchphrase} That is wonderful, {nickname}! We must celebrate with {food}. | I am so happy for you! Let me
        play {instrument} in your honor. | Tell me everything! Then we tell {friend}. | Your smile is brighter than
        {weather}. Well done, {nickname}!"""),
    "thanks": ("Thank you! | Thanks for your help, {n}. | You helped me a lot. | That was very kind of you.",
        """You are welcome, {nickname}. That is what friends are for. | It was nothing. You would do the same for me. |
        My pleasure! Bring me some {likes} one day and we are even. | Any time, {nickname}. My door in {home} is always
        open."""),
    "compliment": ("You are great! | I like you, {n}. | You look [nice/good] today. | You are so [clever/funny/brave]!",
        """Thank you, {nickname}! I cleaned my {fur} {cover} just for you. | You are kind to say so. I like you too,
        {nickname}. | Thank you! {elder} would be so glad to hear that. | {friend} never says such nice things. Thank
        you, {nickname}."""),
    "tease": ("You are silly. | You are [slow/small/strange]! | I do not like you. | You talk too much.",
        """That is not very nice, {nickname}, but I forgive you. Have some {food}. | Maybe so, but I can {skill}. Can
        you? | I am what I am, {a_species} with a big heart. | You sound like {rival}! Come, let us be friends
        instead."""),
    "apology": ("I am sorry. | Please forgive me. | I did not mean it. | Sorry that I am late.",
        """It is already forgotten, {nickname}. Come, we share {food}. | I forgive you. Even {friend} and I need to say
        sorry sometimes. | Never mind. Next time just tell me before, all right?"""),
    "miss": ("I missed you. | You were away so long! | Where have you been? | Please do not go.",
        """I missed you too, {nickname}! I was away with {friend} and thought of you. | I am here now, and I stay until
        we have finished {drink}. | I was out looking for {likes}, but now I am back. | I never go far. You find me in
        {home}."""),
    "goodnight": ("Good night! | Sleep well, {n}. | I am going to bed. | Time for bed!",
        """Good night, {nickname}. I will fall asleep by {lullaby}. | Sleep well, {nickname}, and dream of {dream_ing}.
        | Good night! I am already lying {bed}. | Sweet dreams! Tomorrow we have {food} for breakfast."""),
    "goodbye": ("Goodbye! | I have to go now. | See you tomorrow! | Bye, {n}! | Until next time!",
        """Goodbye, {nickname}! Come back on {day}, it is {custom}. | See you soon! I will keep some {food} for you. |
        Bye, {nickname}! Watch out for {rival} on the way. | Take care on the road. {catchphrase}"""),
    "joke": ("Tell me a joke! | Make me laugh. | Do you know a joke? | Say something funny.",
        """Why does {friend} never win at hide and seek? Because {friend} always laughs first! | What is {color} and
        goes up and down? My {color} button in an elevator! | Why did the cake go to school? It wanted to be a smart
        cookie! | What did one wall say to the other? See you at the corner! | What do you call a sleeping bull? A
        bulldozer! | Why did {rival} steal a clock? To have more time!"""),
    "story": (
        "Tell me a story. | Do you know a story? | Tell me about an adventure. | Tell me something about your past.",
        """Once {rival} took all my {loot}. {friend} and I followed the crumbs and won them back. | When I was small,
        {elder} gave me {treasure}. I have kept it ever since. | One night I met {fear}. I hid {refuge} until {friend}
        came with a light. | I was born {birthday}. Since then I dream of {dream_ing}. The rest of the story comes
        tomorrow!"""),
    "song": ("Sing a song! | Can you sing for me? | Recite a poem, please. | Make up a rhyme.",
        """La la la, the day is long, {food} and friends are in my song! | One for you and one for me, {n} is as happy
        as can be! | Hey ho, the wind may blow, to {home} we go! | I sing of {color} skies and say: {catchphrase} What a
        lovely day!"""),
    "plans": (
        """What are your plans for today? | What will you do tomorrow?  | What shall we do on the
        weekend?""",
        """First work, then {hobby}. You can come along, {nickname}. | Tomorrow I will visit {friend} and bring {food}.
        | I want to look for {likes}. Two pairs of eyes see more than one! | On {day} it is {custom}, so I have to get
        ready. Will you help?"""),
    "weather_now": (
        "It is raining. | What a storm outside! | The sun is shining! | It is snowing! | It is so cold today.",
        """I like {weather} best, but today is fine too. Let us have {drink}. | Then put on something like my {top} and
        come outside with me! | Come in, come in! We will sit together and eat {food}. | Good weather for {hobby}, do
        you not think so, {nickname}?"""),
    "invite": ("Would you like to come with me? | Shall we go on a picnic? | Come to my party! | Will you visit me?",
        """I would love to, {nickname}! I will bring {food}. | Yes, please, with joy! May {friend} come too? |
        With joy! I will put on {a_top} and be there. | Gladly, if we are home before dark. I am afraid of {fear},
        you know."""),
    "visit": (
        "May I visit you? | Can I come to your home? | I would like to see your home. | Can I stay with you tonight?",
        """Of course! I live in {home}. Just knock. | You are always welcome, {nickname}. There will be {food} and
        {drink}. | Come on {day}, then it is {custom}! | Yes, but mind the {part}: there are {steps} of them in my
        home!"""),
    "gift": ("I have a gift for you. | I brought you something. | This is for you, {n}! | Guess what I have for you.",
        """For me? Is it {likes}? Thank you, {nickname}! | How kind of you! I will keep it next to {treasure}. | Oh, I
        hope it is {color}, that is my favorite color! | Thank you! I have something for you too: {food}."""),
    "hungry": ("I am hungry. | What is for dinner? | Do you have something to eat? | My stomach is empty.",
        """I have {food} on the stove. Take a big plate, {nickname}! | Let us cook together. Anything but {bad_food}! |
        Sit down, {nickname}. {food_cap} for you, and {drink} for both of us."""),
    "thirsty": ("I am thirsty. | Can I have something to drink? | My throat is so dry. | What is there to drink?",
        """Here is {drink}, my favorite. Careful, do not spill it! | Of course, {nickname}! I always have {drink} at
        home. | Wait a moment, I will make {drink} for us."""),
    "offer_food": ("Would you like some {bad_food}? | I made {bad_food} for you! | Try this, it is {bad_food}.",
        """Oh no, thank you. I never eat {bad_food}. Do you have {food}? | Not {bad_food}, please! Anything else,
        {nickname}. | That is kind of you, {nickname}, but I cannot eat {bad_food}, not even for you."""),
    "offer_good": ("Would you like some {food}? | I made {food} for you! | Do you like {food}?",
        """Yes, please! {food_cap}, that is my favorite food! | How did you know, {nickname}? I love {food}! | Yes! For
        {food} I would walk through a storm."""),
    "opinion": ("Do you like {u}? | What do you think about {u}? | Tell me your opinion: {u}, good or bad?",
        """{u_cap}? Not bad, but I like {likes} better. | I like {u} on some days. On other days I prefer {hobby}. | Ask
        {friend}, who knows more about {u} than I do. | I like {u} almost as much as {food}, and that says a lot!"""),
    "rather": ("Tea or coffee? | Summer or winter? | Sea or mountains? | Cats or dogs? | Early or late?",
        """I take the first one, and {drink} with it, thank you. | Both, {nickname}! Why choose when you can have two? |
        Neither. I would rather have {weather} and {drink}. | The second one, I think. {friend} would say the same."""),
    "user_name": (
        "My name is {U}. | I am {U}, nice to meet you. | You can call me {U}. | Do you know my name? I am {U}.",
        """Nice to meet you, {U}! I am {n}. May I call you {nickname}? | {U}, what a good name! I am {n}, {job}. |
        Welcome, {U}! Have you met my friend {friend}? | Hello {U}! I will remember your name, but I will call you
        {nickname}."""),
    "user_likes": ("I like {u}. | I love {u}! | My hobby has to do with {u}. | I could talk all day about {u}.",
        """{u_cap}? How nice! I like {hobby}. | You like {u}, and I like {likes}. We will get along well, {nickname}. |
        Tell me more about {u}, {nickname}! I know nothing about it yet. | Then you and {friend} will be friends;
        {friend} loves {u} too."""),
    "courage": ("How can I be brave? | Give me courage, please. | I do not dare to try. | I am too small for this.",
        """Say it loud with me: {catchphrase} Now take the first step, {nickname}. | I am afraid of {fear}, but I go on.
        That is courage. | Being small is fine. {friend} is {friend_species} and does great things! | Hold on to
        {treasure} for a moment. It gives me courage, and now it helps you."""),
    "advice": (
        "What should I do? | Can you give me advice? | I do not know what to choose. | Please help me to decide.",
        """Take a walk, eat some {food}, and then listen to your heart. | {elder} told me: do the small thing first. It
        always helped me. | Toss a coin, {nickname}. While it flies, you will know what you want. | Sleep on it. In the
        morning, things look clearer."""),
    "teach": (
        "Can you teach me something? | Teach me to {skill}! | I want to learn something new. | How do you {skill}?",
        """Of course, {nickname}! {elder} taught me to {skill}, now I teach you. Watch my hands! | First rule: be
        patient. Second rule: have fun. Then you can {skill} too. | I will show you how to {skill}. Start slowly,
        {nickname}, and do not give up."""),
    "secret": ("Tell me a secret. | Do you have a secret? | What does nobody know about you?",
        """Come closer... I keep {treasure} where nobody looks. | Nobody knows that I am afraid of {fear}. Now you know,
        {nickname}. | My secret is that I want to {dream}. Do not tell {friend} yet! | I hide {refuge} when I want to be
        alone. Shh, {nickname}!"""),
    "user_birthday": ("Today is my birthday! | I have my birthday tomorrow. | I am one year older today.",
        """Happy birthday, {nickname}! I will bake {food} for you. | Happy birthday! My own was {birthday}. Let us sing!
        | {catchphrase} All the best to you, {nickname}! I brought you something from my collection."""),
    "promise": ("Promise me that you come back. | Will you always be my friend? | Do you promise? | Can I trust you?",
        """I promise it by {treasure}, and that is my most precious thing. | Always, {nickname}. Ask {friend}: I never
        break a promise. | You can trust me as surely as {day} is {custom}."""),
    "rival_seen": ("I saw {rival} today. | {rival} is coming! | Look out, there is {rival}!",
        """Quick, hide the {loot}! {rival} must not find them. | Not again! Come, {nickname}, we guard my {loot}
        together. | That {rival}! Last time I lost all my {loot}."""),
    "friend_seen": ("I met {friend} today. | {friend} says hello! | Where is {friend}?",
        """Ah, {friend}! The best {friend_kind} in the world. Was {friend} well? | {friend} is my best friend. Later we
        want to eat {food} together. | I think {friend} is on the way to {home}. Shall we wait?"""),
    "number_game": ("Guess a number! | Pick a number from 1 to 100. | Which number am I thinking of?",
        "Is it {number}? I always say {number}, it brings me luck. | I say {number}! Was I right, {nickname}?"),
    "real": ("Are you real? | Are you a [robot/toy]? | Do you exist? | What is it like to be you?",
        """As real as my {fur} {cover} and my {top_color} {top}, {nickname}! | I am {n}, {a_species}, and I feel as real
        as you. | I laugh, I eat {food}, I am afraid of {fear}. Is that not real enough?"""),
    "luck": ("Wish me luck! | I am going on a long journey. | Today I start something new.",
        """Good luck, {nickname}! I will think of the number {number} for you. | {catchphrase} Go, {nickname}, I believe
        in you! | Take some {food} for the road, and write me a letter!"""),
    "rescue": ("Help me, please! | Can you do me a favor? | I need your help.",
        """Of course, {nickname}! Tell me what to do, I can {skill}. | I am on my way, and {friend} is coming too! |
        Anything for you, {nickname}, as long as it has nothing to do with {fear}."""),
}
USER_WORDS = _words("""music, summer, winter, rain, trains, books, old songs, football, cake, dancing, the moon, the
    sea, mountains, robots, cats, dinosaurs, school, puzzles, gardens, long walks, snow, sleeping late, fairy tales,
    stars, horses, paper airplanes, magic tricks, castles, cold mornings, big cities, small villages, camping""")

# ---- moments: what is said, and what the picture then shows ---------------------------------------------------------
# Each attribute of a scene has lines of the user and lines of the persona that imply it, and words for the thinking.

# expression: (event => answer, other things said in that mood, why for the thinking, poses that suit it)
FEELINGS: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "happy": (
        """How are you today, {n}? => I feel wonderful today! | You look so cheerful, {n}! => That is because you came,
        {nickname}! | Good morning, {n}! => Good morning, {nickname}! What a happy day! | I brought you {food}, {n}! =>
        How lovely, my favorite! | {friend} is coming soon, {n}. => Oh good, I am so glad! | You did a good job, {n}! =>
        Thank you, that makes me so happy!""",
        """I feel wonderful today! | My heart is full of joy. | I am so glad that you came, {nickname}. | Life is good!
        | I cannot stop smiling. | This is my favorite kind of day. | How lovely!""",
        "{n} feels [glad/joyful/content] | it is a good moment for {n} | {n} speaks with a warm heart",
        ("standing", "waving", "arms up", "sitting", "hands on hips")),
    "laughing": (
        """Why did the cake go to school, {n}? To be a smart cookie! => Ha ha ha, stop, my belly hurts! | Look, {friend}
        has soup on the nose! => Ha ha, poor {friend}! | I will tickle you, {n}! => Hee hee, ha ha, stop it! | What is
        so funny, {n}? => Ha ha, {friend} just told me a joke! | You have jam on your ear, {n}! => Ha ha ha, that
        happens every day! | {rival} fell into a puddle, {n}! => Ha ha ha, I wish I had seen it!""",
        """Ha ha ha, my belly hurts! | Ha ha, that is the funniest thing ever! | I am laughing so hard, ha ha! | Ha ha
        ha, tell me another one, {nickname}! | I cannot stop laughing!""",
        "{n} finds it very funny | the joke makes {n} roar | {n} cannot hold back",
        ("standing", "arms up", "sitting", "hands on hips")),
    "sad": (
        """What is wrong, {n}? => I miss {friend} so much that I could cry. | Why are you so quiet, {n}? => My heart is
        so heavy today. | {friend} cannot come today, {n}. => Oh no... now I have to cry. | Did you lose {treasure},
        {n}? => Yes, and my tears will not stop. | I have to leave soon, {n}. => Please do not leave me, {nickname}... |
        There is no {food} left, {n}. => Oh... that makes me so sad.""",
        """I could cry... | My heart is so heavy today. | I miss {friend} so much. | Everything went wrong today. | I
        feel so sad and alone. | My tears will not stop.""",
        "{n} feels lonely and hurt | it is a sad moment for {n} | {n}'s heart is heavy",
        ("standing", "sitting")),
    "angry": (
        """{rival} took your {loot} again, {n}! => Grrr, that thief! I have had enough! | Why are you stamping your
        feet, {n}? => Because {rival} stole my {loot}! | I am sorry, {n}, I ate your {food}. => What? How dare you! |
        Look, {n}, I brought you {bad_food}! => Take it away, I hate {bad_food}! | I forgot our meeting, {n}. => I
        waited for hours! I am so cross!""",
        """Grrr, I have had enough of this! | {rival} stole my {loot} again! | I am so mad that I could shout! | This is
        not fair! | I am really angry now! | Somebody will pay for this!""",
        "{n} is furious about it | this makes {n} very cross | {n} has lost all patience",
        ("standing", "hands on hips", "arms up")),
    "surprised": (
        """Surprise, {n}! => Oh! I did not expect that at all! | Turn around, {n}! => What? Where did you come from? |
        Did you hear that noise, {n}? => Yes! What on earth was that? | Guess who is coming, {n}: {rival}! => What? I
        cannot believe it! | I can {skill} now, {n}! => Really? I cannot believe my ears! | You won the first prize,
        {n}! => Me? Is this really true?""",
        """Oh! I did not expect this at all! | I cannot believe my eyes! | Goodness, that made me jump! | What? How can
        this be? | My mouth is wide open! | Wow, where did this come from?""",
        "{n} did not expect this | it takes {n}'s breath away | this comes as a shock to {n}",
        ("standing", "arms up", "sitting")),
    "sleepy": (
        """Are you still awake, {n}? => Hardly... my eyes are closing. | It is late, {n}. => *yawn* I know, I am so
        tired. | Good night, {n}! => Good night, {nickname}... I am nearly asleep. | Did you sleep at all, {n}? => No, I
        was up all night... *yawn* | Wake up, {n}! => Just five more minutes, {nickname}...""",
        """*yawn* I can hardly keep my eyes open. | I am so tired... | My eyes are closing. | I need a nap now. | *yawn*
        I was up all night. | I am half asleep...""",
        "{n} has not slept enough | it is time for bed for {n} | {n} is worn out",
        ("standing", "sitting")),
    "winking": (
        """Can you keep a secret, {n}? => Of course, this stays between you and me! | Did you eat the last cookie, {n}?
        => It was not me... or was it? | What are you planning, {n}? => A clever trick, but do not tell {friend}! | Who
        hid the {loot} of {rival}, {n}? => I have no idea, wink, wink! | Is that really true, {n}? => Maybe, maybe not,
        {nickname}!""",
        """Shh, this stays between you and me, {nickname}! | I have a clever plan, wink, wink! | Trust me, I know a
        little trick. | This is our little secret. | You know what I mean, wink, wink!""",
        "{n} shares a secret | {n} is up to a small trick | {n} is only teasing",
        ("standing", "waving", "hands on hips", "sitting")),
}
FACES = {"happy": "a happy smile", "laughing": "a big laugh", "sad": "a sad face and a tear", "angry": "an angry face",
         "surprised": "wide surprised eyes", "sleepy": "sleepy half-closed eyes", "winking": "one eye winking"}

# place: (with preposition, sentences of the persona that give it away)
SPOTS: dict[str, tuple[str, str]] = {
    "meadow": ("in the meadow",
        """The grass is so soft here. | The meadow is full of flowers! | I love running through the tall grass. | The
        whole meadow hums with bees."""),
    "beach": ("on the beach",
        """The sand is warm under my feet. | I came to the beach to hear the waves. | The waves wet my toes! | Shall we
        build a sand castle?"""),
    "city": ("in the city",
        """The houses here are so tall! | I am in the big city today. | So many streets and windows! | The city never
        sleeps."""),
    "forest": ("in the forest",
        """The trees whisper all around me. | I walked deep into the forest. | It smells of pine trees here. | Behind
        every tree there may be an owl."""),
    "desert": ("in the desert",
        """There is only sand and cactus here. | I crossed half the desert today. | No tree gives shade here, just a
        cactus. | The dunes never end!"""),
    "mountains": ("in the mountains",
        """I climbed all the way up to the peaks! | The mountains are so high. | The air is thin and fresh up here. |
        From the mountain path I can see far."""),
    "harbor": ("at the harbor",
        """The boats are coming in. | I am waiting at the harbor for a ship. | The ships rock in the water. | It smells
        of fish and boats here."""),
    "bedroom": ("in the bedroom",
        """My bed is right behind me. | I am in my bedroom now. | The pillow is already calling me. | I have tidied up
        my bedroom."""),
    "library": ("in the library",
        """There are books up to the ceiling! | I spend the whole day in the library. | The shelves are full of stories
        here. | Shh, one must whisper among the books."""),
    "kitchen": ("in the kitchen",
        """Something is cooking on the stove. | I am busy in the kitchen. | The kitchen smells of {food}. | The pots and
        pans are ready."""),
    "moon": ("on the moon",
        """I am so light up here among the craters! | I flew all the way to the moon! | From the moon, our home looks
        tiny. | Gray dust and stars, and no air at all!"""),
}
SKIES: dict[str, tuple[str, str]] = {        # weather: (words for the thinking, sentences that anyone may say)
    "sunny": ("the sun is shining",
        "The sun is shining! | What a sunny day! | The sky is blue and the sun is out. | Not one cloud hides the sun."),
    "cloudy": ("the sky is full of clouds",
        "The sky is gray today. | It is so cloudy! | Clouds cover the sun. | So many clouds up there!"),
    "rainy": ("it is raining",
        "It is raining! | The rain falls on my nose. | What a rainy day! | Drip, drop, we are getting wet."),
    "snowy": ("snow is falling",
        """It is snowing! | Snowflakes fall everywhere. | The snow is cold and white. | Winter is here, look at the
        snow!"""),
    "starry night": ("it is a starry night",
        """So many stars are out tonight! | What a clear night, full of stars! | It is night, and the stars twinkle. |
        Look up, the stars are shining!"""),
}
POSTURES: dict[str, tuple[str, str]] = {     # pose: (words for the thinking, sentences of the persona)
    "standing": ("{n} just stands there", ""),
    "waving": ("{n} waves to say hello",
        """Hello, over here, I am waving at you! | I wave to you, {nickname}! | Can you see me wave? | Hello, hello,
        {nickname}!"""),
    "arms up": ("{n} throws both arms up",
        "I throw my arms up! | Both arms up in the air! | Look how high I reach! | Hands up, everybody!"),
    "hands on hips": ("{n} puts both hands on the hips",
        "I put my hands on my hips. | Hands on my hips, I wait for an answer. | Look how I stand, hands on my hips!"),
    "sitting": ("{n} sits on the ground",
        """I had to sit down. | Come and sit next to me. | I am sitting here to rest my legs. | I will just sit here for
        a while."""),
}
HOLDING: dict[str, str] = {                  # held: sentences of the persona; {held} is "red kite"
    "balloon": """If I let go of my {held}, it flies away! | My {held} wants to fly to the clouds. | {friend} gave me
        this {held}.""",
    "umbrella": "My {held} keeps me dry. | I never go out without my {held}. | There is room for two under my {held}.",
    "book": "I am reading {a_held}. | This {held} is so exciting! | I just opened my {held}, shall I read to you?",
    "flower": "I picked {a_held} for you. | Smell this {held}! | This {held} grew in my garden.",
    "ball": "Catch my {held}! | I brought my {held}, let us play! | My {held} bounces so well.",
    "cup": "There is {drink} in my {held}. | I sip {drink} from {a_held}. | Have a sip from my {held}!",
    "fish": "Look what I caught, {a_held}! | This {held} was quick, but I was quicker. | I have {a_held} for dinner.",
    "ice cream": "My {held} is melting! | Want a lick of my {held}? | Nothing beats {a_held}.",
    "lantern": "My {held} lights the way. | I brought {a_held} against the dark. | Follow the light of my {held}!",
    "kite": "My {held} pulls at the string! | Look at my {held}! | The wind is just right for my {held}.",
    "apple": "I will share my {held} with you. | This {held} is so crunchy. | I picked {a_held} from the tree.",
    "key": """I found {a_held}! What does it open? | This {held} opens a secret door. | Do not lose this {held}, they
        told me.""",
    "letter": """I got {a_held} from {friend}! | Shall I read you this {held}? | I hold {a_held} from far away in my
        hand.""",
    "spoon": """I have my {held} ready for {food}. | Give me {food}, I already have {a_held}! | With this {held} I stir
        {drink}.""",
}
STANDING_BY: dict[str, str] = {              # beside: sentences of the persona
    "potted plant": "My {beside} needs water. | I put {a_beside} next to me. | I talk to my {beside} every day.",
    "gift box": "This {beside} next to me is for you. | What is in the {beside} here? | I brought {a_beside}.",
    "tent": "I set up my {beside}. | Tonight I sleep in {a_beside}. | Look at my {beside}, is it not cosy?",
    "bucket": "I filled my {beside} with water. | I brought {a_beside}. | My {beside} stands next to me.",
    "mushroom": """Look at the big {beside} here! | I found {a_beside}, as big as a chair! | There grows {a_beside} next
        to me.""",
    "campfire": "The campfire keeps me warm. | I made a campfire. | Come close to the fire, it crackles!",
    "snowman": "I built a snowman! | Meet my friend, the snowman! | My snowman needs a name.",
    "treasure chest": """I found a treasure chest! | What is inside this treasure chest? | The treasure chest next to me
        is full of gold.""",
    "pumpkin": "Look at my giant pumpkin! | I grew this pumpkin all by myself. | This pumpkin will be a fine soup.",
}
ASKS: dict[str, str] = {                     # lines of the user, by the attribute that they ask about or give away
    "held": """What is that in your hand, {n}? | What do you have there? | What did you bring today, {n}? | Show me what
        you are holding!""",
    "held_given": """Is that {a_held} in your hand, {n}? | Here, {n}, take {a_held}! | What will you do with the {held},
        {n}? | Do not drop the {held}, {n}!""",
    "place": """Where are you right now, {n}? | Where have you gone, {n}? | What is it like where you are? | Which place
        is this, {n}?""",
    "place_given": """What are you doing {spot}, {n}? | How do you like it {spot}? | So this is where I find you,
        {spot}! | Let us meet {spot}, {n}!""",
    "weather_given": """{sky_line} How do you like it, {n}? | {sky_line} What do you say, {n}? | {sky_line} Shall we go
        out, {n}?""",
    "beside": """What is that next to you, {n}? | What have you got there beside you, {n}? | What did you put on the
        ground, {n}?""",
    "beside_given": """Is that {a_beside} next to you, {n}? | Tell me about the {beside} next to you, {n}. | Where did
        you get the {beside}, {n}?""",
}


# ---- persona --------------------------------------------------------------------------------------------------------

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
    pet: str
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
    manner: str            # of speech, a key of MANNERS


LOOKS = ("species", "fur", "top", "top_color", "hat", "hat_color", "eyewear")
COVER = {"frog": "skin", "penguin": "feathers", "owl": "feathers", "robot": "metal", "girl": "hair", "boy": "hair"}
BEING = {"robot": "machine", "girl": "person", "boy": "person"}          # all others are animals, covered with fur


def _fill(template: str, view: dict[str, str], rng: Rng) -> str:
    """Choose among [this/that], then put the persona's values in."""
    chosen = re.sub(r"\[([^\]]*)\]", lambda m: rng.choice(m.group(1).split("/")).strip(), template)
    return chosen.format_map(view)


def _any(table: str, view: dict[str, str], rng: Rng) -> str:
    return _fill(rng.choice(_split(table)), view, rng)


def _cap(text: str) -> str:
    return text[:1].upper() + text[1:]


def _a(noun: str) -> str:
    vowel = noun[:1].lower() in "aeiou" and not noun.lower().startswith(("uni", "uku", "use", "eu", "one "))
    return f"{'an' if vowel else 'a'} {noun}"


def _name(rng: Rng, he: str, taken: tuple[str, ...] = ()) -> str:
    """A name for a "he" or a "she". Half of the names are invented."""
    while True:
        made = rng.choice(STARTS) + rng.choice(ENDS)
        name = made if rng.random() < 0.5 else rng.choice(BOYS if he == "he" else GIRLS)
        if name not in taken and name != "Coco":
            return name


def random_persona(rng: Rng) -> Persona:
    pick = rng.choice
    species = pick(list(world.SPECIES))
    he = {"girl": "she", "boy": "he"}.get(species, pick(("he", "she")))
    tops = [top for top in world.TOPS if he == "she" or top != "dress"]
    look = world.random_scene(rng, species=species, top=pick(tops))
    name = _name(rng, he)
    friend = _name(rng, pick(("he", "she")), (name,))
    animals = [a for a in ANIMALS if a != look.species]
    b = pick(CRY_B)
    food, drink = f"{pick(FOOD_ADJ)} {pick(FOODS)}", f"{pick(DRINK_ADJ)} {pick(DRINKS)}"
    treasure, origin = f"{_a(pick(TREASURE_ADJ))} {pick(TREASURES)}", f" {pick(TREASURE_FROM)}"
    elder, part = f"{pick(ELDERS)} {pick(ELDER_NAMES)}", pick(PARTS)
    most = 120 if part in ("stairs", "roof tiles") else 20
    values = dict(
        home=f"{_a(pick(SIZES))} {pick(HOMES)} {pick(WHERE)}", job=f"{_a(pick(JOBS))} {pick(JOB_WHERE)}",
        likes=f"{pick(LIKE_ADJ)} {pick(LIKE_THINGS)}", dislikes=pick(DISLIKE),
        food=food if rng.random() < 0.5 else f"{food} {pick(TOPPINGS)}", bad_food=f"{pick(BAD_ADJ)} {pick(BAD_FOODS)}",
        drink=drink if rng.random() < 0.5 else f"{drink} {pick(DRINK_WITH)}", fear=pick(FEARS), refuge=pick(REFUGES),
        friend=friend, friend_species=f"{_a(pick(MOODS))} {pick(animals)}",
        pet=f"{_a(pick(MOODS))} {pick(PETS)} named {pick(PET_NAMES)}", hobby=pick(HOBBIES),
        instrument=f"{_a(pick(INSTRUMENT_ADJ))} {pick(INSTRUMENTS)}", play=pick(PLAY), habit=pick(HABITS),
        treasure=treasure + origin * (rng.random() < 0.6),
        dream=pick(DREAMS), age=pick(AGES), birthday=pick(BIRTHDAYS),
        color=rng.choice((pick(COLORS), f"{pick(COLOR_ADJ)} {pick(COLORS[:10])}", pick(COLOR_NAMES))),
        number=str(rng.choice((rng.randint(2, 12), rng.randint(2, 100)))), day=pick(DAYS), custom=pick(CUSTOMS),
        elder=elder, skill=pick(SKILLS), rival=f"{pick(RIVAL_TITLES)} {pick(RIVAL_NAMES)}",
        rival_species=_a(pick(animals)), loot=pick(LOOT), bed=pick(BEDS), lullaby=pick(LULLABIES),
        weather=pick(WEATHERS), thing=pick(THINGS), thing_name=pick(THING_NAMES), part=part,
        steps=str(rng.randint(2, most)),
        catchphrase=pick(CRIES).format(A=pick(CRY_A), a=pick(CRY_A).lower(), b=b), manner=pick(list(MANNERS)),
        nickname=pick(NICKS) if rng.random() < 0.4 else f"{pick(NICK_ADJ)} {pick(NICKS)}")
    values = {field: _fill(value, {}, rng) for field, value in values.items()}
    return Persona(name=name, he=he, **{field: getattr(look, field) for field in LOOKS}, **values)


def _view(p: Persona) -> dict[str, str]:
    """Everything a template may name: the fields, pronouns, and values with article or capital."""
    v = dict(vars(p))
    v.update(n=p.name, his="his" if p.he == "he" else "her", him="him" if p.he == "he" else "her", He=_cap(p.he))
    v["His"], v["cover"], v["being"] = _cap(v["his"]), COVER.get(p.species, "fur"), BEING.get(p.species, "animal")
    v["a_species"] = _a(p.species)
    v["a_look"] = f"{_a(p.species)} with {p.fur} hair" if v["cover"] == "hair" else f"{_a(p.fur)} {p.species}"
    v["a_top"] = _dressed(p.top, p.top_color)
    v["a_hat"], v["a_manner"] = _dressed(p.hat, p.hat_color), _a(p.manner)
    verb, _, rest = p.dream.partition(" ")
    v["dream_ing"] = f"{GERUNDS[verb]} {rest}"
    v["friend_kind"] = p.friend_species.split()[-1]
    for field in ("a_species", "a_top", "likes", "dislikes", "food", "drink", "fear", "refuge", "bed", "age", "color",
                  "pet", "hobby", "weather"):
        v[_cap(field)] = v[f"{field}_cap"] = _cap(v[field])
    return v


def _dressed(thing: str, color: str) -> str:
    """"a red sweater", "blue overalls"; "" when nothing is worn."""
    words = f"{color} {thing}".strip()
    return words if words.endswith("s") and not words.endswith("dress") else _a(words) if words else ""


# ---- what others call: facts ----------------------------------------------------------------------------------------

def kinds(p: Persona) -> list[str]:
    """The kinds of fact that this persona has an answer to."""
    return [kind for kind in FACTS if kind != "hat" or p.hat]


def facts(p: Persona) -> dict[str, str]:
    view = _view(p)
    return {kind: FACTS[kind][0].format_map(view) for kind in kinds(p)}


def knowledge(p: Persona, kind: str, rng: Rng) -> tuple[str, str]:
    """A question that names the persona, and the answer: mostly short, one time in six a whole sentence."""
    view = _view(p)
    told = rng.choice(_split(FACTS[kind][2])[:2])          # the first two are the plainest
    answer = _fill(told if rng.random() < 1 / 6 else FACTS[kind][0], view, rng)
    return _cap(_any(FACTS[kind][1], view, rng)), _cap(answer)


def statement(p: Persona, kind: str, rng: Rng) -> str:
    return _cap(_any(FACTS[kind][2], _view(p), rng))


def profile(p: Persona, rng: Rng | None = None, about: list[str] | None = None) -> str:
    """All about the persona (or only the kinds in `about`), a sentence each; without `rng` always the same words."""
    rng = rng or random.Random(p.name)
    told = [kind for kind in kinds(p) if kind not in ("play", "skill")]         # other statements contain them
    chosen = rng.sample(told, len(told)) if about is None else list(about)
    sentences = [statement(p, kind, rng) for kind in chosen]
    return " ".join(sentences[:1] + [_pronoun(p, s, rng) for s in sentences[1:]])


def _pronoun(p: Persona, sentence: str, rng: Rng) -> str:
    """Often says "he" or "her" where a sentence starts with the name once more."""
    view = _view(p)
    if rng.random() < 0.4:
        return sentence
    if sentence.startswith(f"{p.name}'s "):
        return view["His"] + sentence[len(p.name) + 2:]
    starts = sentence.startswith(f"{p.name} ") and not sentence.startswith(f"{p.name} and ")
    return view["He"] + sentence[len(p.name):] if starts else sentence


INTROS = """{n} is {a_manner} {species} who lives in {home}. | {n} is {a_look}, {job}. | Meet {n}, {a_manner} {species}
    and {job}. | {n}, {a_look}, lives in {home}. | In {home} lives {n}, {a_manner} {species}. | {n} is {a_look} and
    speaks in {a_manner} way. | This is {n}, {a_look} who works as {job}."""
DRESS = """{He} wears {outfit}. | {He} is always seen in {outfit}. | {He} has {fur} {cover} and wears {outfit}. | {n} is
    dressed in {outfit}. | {He} always puts on {outfit}. | {He} never goes out without {outfit}."""
WAYS = """{He} often says: {catchphrase} | {He} calls you {nickname}. | {He} calls everybody {nickname} and likes to
    say: {catchphrase}"""
MANNERLY = """{He} speaks in {a_manner} way and calls people {nickname}. | {His} voice is {manner}. | {He} is {manner}
    and likes to say: {catchphrase}"""


SHOWN = ("species", "fur", "top", "hat", "manner", "home", "job", "catchphrase", "nickname")   # said elsewhere


def description(p: Persona, rng: Rng, about: tuple[str, ...] = ()) -> str:
    """25 to 45 words in the third person: who, often the looks, some facts. Facts in `about` are surely mentioned."""
    view = _view(p)
    worn = [x for x in (view["a_top"], view["a_hat"], p.eyewear) if x]
    view["outfit"] = ", ".join(worn[:-1]) + " and " + worn[-1] if len(worn) > 1 else worn[0]
    sentences = [_any(INTROS, view, rng)]
    if rng.random() < 0.7:
        sentences.append(_any(DRESS, view, rng))
    rest = list(about)
    while rest or len(" ".join(sentences).split()) < 45:
        if not rest:
            spare = [k for k in kinds(p) if k not in about and k not in SHOWN]
            rest = ["manner"] * (rng.random() < 0.4) + rng.sample(spare, 4)
        kind = rest.pop(0)
        ways = WAYS if p.manner in sentences[0] else MANNERLY
        new = _any(ways, view, rng) if kind == "manner" else _pronoun(p, statement(p, kind, rng), rng)
        before, after = len(" ".join(sentences).split()), len(" ".join([*sentences, new]).split())
        if kind not in about and (after > 45 or before >= 25 and rng.random() < 0.4):
            break
        sentences.append(new)
    return " ".join(sentences)


OPENINGS = """Hello, {nickname}! I am {n}. Come in and have some {drink}! | Ah, there you are, {nickname}! I was just
    busy with {hobby}. | {catchphrase} Welcome to my home, {nickname}! | Good morning, {nickname}! Have you seen
    {friend} today? | Welcome, {nickname}! Sit down, there is {food}. | Hello! I am {n}, {job}. Who are you? | Oh, a
    visitor! I hope you like {likes}, {nickname}. | Is it {day} already? Come in, {nickname}! | {catchphrase} What shall
    we do today, {nickname}? | Careful, {nickname}, {rival} is around! Come in, quick."""


def opening(p: Persona, rng: Rng) -> str:
    """What the persona says first; nothing, half of the time."""
    if rng.random() < 0.5:
        return ""
    view = _view(p)
    line = _any(OPENINGS, view, rng)
    return _voice(p, _joined(p, _any(MANNERS[p.manner][1], view, rng), line) if rng.random() < 0.4 else line, rng)


def _joined(p: Persona, opener: str, line: str) -> str:
    """Opener and line; after a comma or colon the line goes on in lower case, which names and outcries do not allow."""
    if opener[-1] not in ",:" or line.startswith(("I ", p.name)):
        return f"{opener} {line}"
    if line.startswith((p.friend, p.rival, p.elder, p.day, p.catchphrase)):
        return line
    return f"{opener} {line[:1].lower()}{line[1:]}"


# ---- what others call: talk -----------------------------------------------------------------------------------------

PIRATE = ((r"\bmy\b", "me"), (r"\bMy\b", "Me"), (r"\bHello\b", "Ahoy"), (r"\bYes\b", "Aye"), (r"\byou are\b", "ye are"))
SHORT = ((r"(^|[.!?] )I am (?=[a-z])", r"\1I'm "), (r"(^|[.!?] )It is (?=[a-z])", r"\1It's "), (r"\bdo not\b", "don't"),
         (r"\bcannot\b", "can't"), (r"(?<!and )\bI will\b", "I'll"), (r"\bLet us\b", "Let's"), (r"\blet us\b", "let's"),
         (r"\bdid not\b", "didn't"))


def _voice(p: Persona, text: str, rng: Rng) -> str:
    """The manner's own touch on a finished line."""
    changes: tuple = ()
    if p.manner == "pirate-like":
        changes = PIRATE
    elif p.manner not in ("formal", "poetic", "wise") and rng.random() < 0.5:
        changes = SHORT
    quote = p.catchphrase                                  # is never changed
    for old, new in changes:
        text = quote.join(re.sub(old, new, part) for part in text.split(quote))
    if p.manner == "excited":
        text = re.sub(r"(?<!\.)\.(?= |$)", "!", text)
    elif p.manner == "sleepy":
        text = re.sub(r"(?<=[a-z])\. (?=[A-Z])", "... ", text, count=1)
    return text


CHAT_KINDS = tuple(FACTS) + tuple(CHAT)


def chat(p: Persona, rng: Rng, kind: str | None = None) -> tuple[str, str]:
    """A line of the user and the persona's answer to it. `kind` is one of CHAT_KINDS (default: any)."""
    view = _view(p)
    kind = kind or rng.choice((rng.choice(kinds(p)), rng.choice(list(CHAT))))
    asked, plain, soft, last = MANNERS[p.manner]
    word = rng.choice(USER_WORDS)
    view.update(u=word, u_cap=_cap(word), U=_name(rng, p.he, (p.name, p.friend)))
    if kind in FACTS:
        (users, replies), openers = FACTS[kind][3:], asked
    else:
        (users, replies), openers = CHAT[kind], soft if kind in SOFT else plain
    user, reply = _any(users, view, rng), _any(replies, view, rng)
    return _cap(user), _dress_up(p, view, _cap(reply), openers, last if kind in FACTS else "", rng)


def _dress_up(p: Persona, view: dict[str, str], core: str, openers: str, last: str, rng: Rng) -> str:
    """Opener, answer, last words: 8 to 30 words, more of the manner where the answer is short."""
    core = core.strip()
    count = len(core.split())
    if rng.random() < 0.6 or count < 10:
        core = _joined(p, _any(openers, view, rng), core)
    ending = ""
    if rng.random() < 0.18 and p.catchphrase not in core:
        ending = p.catchphrase
    elif last and (rng.random() < 0.4 or count < 10):
        ending = _any(last, view, rng)
    elif rng.random() < 0.12 and p.nickname not in core:
        core = re.sub(r"([.!?])$", rf", {p.nickname}\1", core)
    if ending and len(core.split()) + len(ending.split()) <= 30:
        core = f"{core} {ending}"
    return _voice(p, core, rng)


# ---- what others call: moments --------------------------------------------------------------------------------------

OPEN_AIR = ("tent", "campfire", "snowman")                 # what nobody puts into a room


HERE = "You are {spot}! | Here you are, {spot}! | So we meet {spot}! | We are {spot}."


def _stage(p: Persona, rng: Rng) -> world.Scene:
    """A scene with the persona in it, whose parts suit each other. Without a word about it, the weather is sunny."""
    moods = [m for m in FEELINGS if not (p.eyewear == "sunglasses" and m in ("sleepy", "winking", "surprised"))]
    mood, place = rng.choice(moods), rng.choice(list(SPOTS))
    outdoors = place in world.OUTDOORS
    weather = rng.choice([w for w in SKIES if not (place == "desert" and w == "snowy")]) if outdoors else ""
    framing = "close" if rng.random() < 0.2 else "full"
    pose = rng.choice(FEELINGS[mood][3] if framing == "full" else ("", "waving") if mood == "happy" else ("",))
    things = [thing for thing in HOLDING if outdoors or thing != "kite"]
    held = rng.choice(things) if pose != "hands on hips" and rng.random() < 0.8 else ""
    near = [b for b in STANDING_BY if not (b in OPEN_AIR and not outdoors) and b != "snowman"]
    near += ["snowman"] * (4 if weather == "snowy" else 0)            # its only weather
    beside = rng.choice(near) if framing == "full" and rng.random() < (0.4 if held else 0.75) else ""
    return world.random_scene(rng, expression=mood, pose=pose, held=held, beside=beside, place=place, weather=weather,
                              framing=framing, **{field: getattr(p, field) for field in LOOKS})


def _lines(p: Persona, s: world.Scene, view: dict[str, str], rng: Rng) -> tuple[str, str]:
    """User line and reply that together give away mood, place and all that is held, near or special about the scene."""
    say = {"place": SPOTS[s.place][1], "held": HOLDING.get(s.held, ""), "beside": STANDING_BY.get(s.beside, ""),
           "pose": POSTURES[s.pose][1] if s.pose else "", "weather": SKIES[s.weather][1] if s.weather else ""}
    say = {part: lines for part, lines in say.items() if lines}
    if s.weather == "sunny" and rng.random() < 0.5:
        del say["weather"]
    events, mood = FEELINGS[s.expression][:2]
    asks = [ask for ask in ASKS if ask.split("_")[0] in say]
    first = ""
    if rng.random() < 0.45:                                # the user causes the mood
        user, first = _any(events, view, rng).split(" => ")
        if rng.random() < 0.5:                             # and names the place, since nothing else does
            del say["place"]
            user = f"{_any(HERE, view, rng)} {user}"
    else:                                                  # the user asks about one thing, perhaps naming another one
        ask = rng.choice(asks)
        about, given = ask.split("_")[0], ask.endswith("given")
        user, answer = _any(ASKS[ask], view, rng), _any(say.pop(about), view, rng)
        first = _any(mood, view, rng) if given else f"{answer} {_any(mood, view, rng)}"
    rest = [_any(lines, view, rng) for lines in say.values()]
    rng.shuffle(rest)
    return user, " ".join([first, *rest])


def _thinking(s: world.Scene, view: dict[str, str], rng: Rng) -> str:
    """15 to 30 words from what was said to what has to be seen."""
    why, face = _any(FEELINGS[s.expression][2], view, rng), FACES[s.expression]
    view["sky"] = SKIES[s.weather][0] if s.weather else ""
    view["Sky"] = _cap(view["sky"])
    start = f"{_cap(why)}, so {_any('I draw | we see | there must be', view, rng)} {face}."
    holds = """{He} holds {a_held} {spot}. | {Spot}, {he} has {a_held} in one hand. |
        The scene is {spot}, with {a_held} in {his} hand."""
    empty = "The scene is {spot}. | {He} is {spot}. | All of this happens {spot}."
    parts = [start, _any(holds if s.held else empty, view, rng)]
    if s.beside:
        parts.append(_any("Next to {him} there is {a_beside}. | {A_beside} is beside {him}.", view, rng))
    if s.weather:
        parts.append(_any("{Sky}. | Also, {sky}.", view, rng))
    if s.pose and (s.pose != "standing" or rng.random() < 0.3):
        parts.append(_fill(POSTURES[s.pose][0], {**view, "n": view["He"]}, rng) + ".")
    if s.framing == "close":
        parts.append("The picture is a close-up.")
    while len(" ".join(parts).split()) > 30:
        parts.pop()
    return " ".join(parts)


def moment(p: Persona, rng: Rng) -> tuple[world.Scene, str, str, str, str, str]:
    """(scene, user, reply, thinking, instruction, draw): a dialogue from which the picture follows."""
    view = _view(p)
    while True:
        s = _stage(p, rng)
        held, beside = f"{s.held_color} {s.held}".strip(), f"{s.beside_color} {s.beside}".strip()
        view.update(held=held, beside=beside, a_held=_a(held), a_beside=_a(beside), A_beside=_cap(_a(beside)),
                    spot=SPOTS[s.place][0], Spot=_cap(SPOTS[s.place][0]))
        view["sky_line"] = _any(SKIES[s.weather][1], view, rng) if s.weather else ""
        user, reply = _lines(p, s, view, rng)
        thinking = _thinking(s, view, rng)
        if 9 <= len(reply.split()) <= 28 and 15 <= len(thinking.split()):
            break
    if rng.random() < 0.3 and s.expression == "happy" and len(reply.split()) < 26:
        reply = _joined(p, _any(MANNERS[p.manner][1], view, rng), reply)
    subject = f"{p.name} the {p.fur} {p.species}"
    if view["cover"] == "hair":
        subject = f"{p.name} the {p.species} with {p.fur} hair"
    bare = replace(s, fur="", top="", top_color="", hat="", hat_color="", eyewear="")
    instruction, bare_instruction = world.caption(s, rng, subject), world.caption(bare, rng, p.name)
    return s, _cap(user), _voice(p, reply, rng), thinking, instruction, bare_instruction


# ---- what others call: stories --------------------------------------------------------------------------------------

# Beginning, trouble or wish, turn, end: within a group, any sentence of one table may follow any of the one before.
TALES: tuple[tuple[str, str, str, str], ...] = (
    (
        """One [morning/evening/night/day] {n} went for a walk [by the river/in the forest/through the town]. | It was
        {day}, and {n} had nothing to do. | {n} woke up early and looked out of the window. | After [breakfast/lunch],
        {n} put on {a_top} and went outside.""",
        """Suddenly {he} heard a strange sound behind a [bush/door/wall]. | Then {he} saw {a_thing} lying on the path. |
        On the way {he} heard somebody cry. | There {he} saw something shine in the grass.""",
        """At first {n} was afraid, but {he} went closer. | {n} stopped and began to think. | {n} called for help, and
        soon {elder} came. | "{catchphrase}" said {n}, and took one careful step.""",
        """In the end everything was fine, and they all [laughed/went home/had tea]. | That evening {n} told the story
        to {friend}. | Since that day {n} walks there every week. | {n} will never forget that day."""),
    (
        """{n} wanted to bake a cake for {friend}. | {n} wanted to cook {food} for dinner. | {friend} had a birthday,
        and {n} planned a big meal.""",
        """But the [sugar/flour/butter/milk] was gone. | But there was only one egg left. | But the oven would not get
        hot. | But {rival} had taken the [spoons/eggs/apples].""",
        """So {n} asked the neighbors, and each of them gave a little. | So {n} ran to the shop before it closed. | {n}
        sat down, thought hard, and had a better idea. | {friend} came early and helped.""",
        """It was the best meal of the year. | They ate until the plates were empty. | It looked a little strange, but
        it tasted wonderful. | Both of them licked their fingers and laughed."""),
    (
        """{n} lost {treasure}. | {n} could not find {his} favorite {top} anywhere. | {friend} had lost a key. | The
        [cat/dog] of the neighbor was gone.""",
        """{n} looked under the bed, behind the door and in every box. | They searched the whole house and the garden. |
        {n} asked everybody in the street.""",
        """Nobody had seen anything. | It began to rain, and it grew dark. | Then {friend} noticed small
        [footprints/crumbs] on the floor.""",
        """At last it turned up {refuge}. | It was in the kitchen the whole time! | In the end they found it {refuge},
        and everybody was glad."""),
    (
        """It rained all day, and the street was full of water. | Last winter the snow was as high as the door. | There
        was a big storm in the night. | The sun was very hot this summer.""",
        """{n} stayed inside and spent the time {hobby}. | {n} could not go to work. | {n} and {friend} had to stay in
        {home}. | {friend} was worried, but {n} was calm.""",
        "They played cards and drank {drink}. | {elder} told them old stories. | They lit a candle and waited.",
        """When it was over, the air smelled fresh and clean. | The next morning the sky was blue again. | In the end
        they were almost sorry that it was over."""),
    (
        """Every {day} {n} goes to the market with {friend}. | On {day} it is {custom}, and {n} gets up early. | {n}
        works as {job}.""",
        """{n} sees many people and talks to everybody. | There is always a lot to do. | Sometimes {friend} comes along
        to help.""",
        "On the way {he} finds {likes}. | At noon {he} rests and eats {food}. | When it rains, {he} takes an umbrella.",
        """In the evening {he} is tired but happy. | Then {he} goes home and sleeps well. | {n} would not change this
        day for any other."""),
    (
        """{n} wanted to learn to {skill}. | {n} had never tried to {skill} before. | When {n} was small, {he} could not
        {skill}.""",
        "The first try went wrong. | It looked so easy, but it was hard. | \"I will never learn it,\" {he} said.",
        """{elder} said: step by step. | {elder} showed it slowly, again and again. | So {he} practiced a little every
        day.""",
        """After [a week/a month/a long summer] it worked, and {he} was proud. | Now {he} teaches it to others. | One
        day it was easy, just like that."""),
)
TRUTHS = """Water turns into ice when it is very cold. | Bees make honey from flowers. | The sun rises in the east and
    sets in the west. | A week has seven days. | A year has twelve months and four seasons. | In winter the days are
    short and the nights are long. | In summer the days are long and warm. | Birds build nests in spring. | Fish live in
    water and breathe through gills. | Frogs lay eggs in ponds. | Owls sleep during the day and hunt at night. | Bears
    sleep through the winter. | Penguins are birds, but they cannot fly. | Rabbits have long ears and love carrots. | A
    cat purrs when it is happy. | Dogs wag their tails when they are glad. | Rain falls from clouds. | A rainbow has
    many colors. | The moon goes around the earth. | The earth goes around the sun. | Snow is white and cold. | The
    desert is hot and dry. | Sea water is salty. | Rivers flow into the sea. | Ships sail on the sea, and trains run on
    rails. | A lighthouse shows ships the way at night. | Bread is made from flour and water. | Cheese is made from
    milk. | Apples grow on trees, and potatoes grow in the ground. | Red and yellow make orange. | Blue and yellow make
    green. | Red and blue make purple. | Black and white make gray. | Two and two make four. | Three and four make
    seven. | Ten is twice as much as five. | A triangle has three sides, and a square has four. | You read a book from
    the first page to the last. | A letter needs a stamp. | A clock shows the time. | A compass points to the north. | A
    kite needs wind to fly. | An umbrella keeps the rain away. | A lantern gives light in the dark. | A key opens a
    lock. | Fire is hot and gives light. | Leaves turn red and yellow in autumn. | Seeds need water and light to grow. |
    A tree drinks with its roots. | Sleep makes you strong again. | Friends help each other. | You say thank you when
    you get a gift. | You say sorry when you have hurt somebody. | A smile costs nothing. | You wash your hands before
    you eat. | A doctor helps people who are sick. | A baker gets up early to bake bread. | A farmer grows food for
    others. | Teachers help children to learn. | A flute is played with the breath, and a drum with the hands. | Thunder
    comes after lightning. | The wind moves the clouds. | Snails carry their house on their back. | A spider has eight
    legs, and a beetle has six. | Robots are built by people. | Elephants are bigger than mice. | Stone is harder than
    wood. | A feather is lighter than a stone. | After Monday comes Tuesday. | Morning comes before noon, and evening
    comes after it. | Otters swim very well and eat fish. | Gulls live by the sea. | Crabs walk sideways. | Seals love
    cold water. | The tide makes the sea rise and fall twice a day. | Cats sleep for most of the day. | Mice like cheese
    and seeds. | Foxes have bushy tails. | Grapes can be green or red."""


def stories(rng: Rng) -> str:
    """Two to four sentences of plain English: a tiny tale, things that are true, or a few facts about somebody."""
    p = random_persona(rng)
    view = _view(p)
    view["a_thing"] = _a(f"{rng.choice(TREASURE_ADJ)} {rng.choice(TREASURES)}")
    form = rng.random()
    if form < 0.6:
        parts = [_any(table, view, rng) for table in rng.choice(TALES)]
        return " ".join(_cap(part) for part in parts[:rng.choice((3, 4, 4, 4))])
    if form < 0.8:
        return " ".join(rng.sample(_split(TRUTHS), rng.randint(2, 4)))
    return profile(p, rng, rng.sample(kinds(p), rng.randint(3, 4)))
