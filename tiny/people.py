"""What personas are made of: names, and the parts of every fact about them.

Parts are combined ("a" + "red" + "house" + "by the river"), so that personas hardly repeat. `[this/that]` is a free
choice of words. random_persona in language.py puts them together; nothing here needs to be read.
"""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=4096)
def split(text: str) -> tuple[str, ...]:
    """The alternatives of a table, between bars; a line break in it is a space."""
    return tuple(" ".join(part.split()) for part in text.split("|"))


def items(text: str) -> list[str]:
    """The same between commas."""
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
STARTS = items("""Bim, Bo, Da, Del, Fi, Fli, Gri, Ha, Jo, Ki, Lim, Lo, Mi, Mu, Ni, No, Pa, Pi, Pom, Qui, Ri, Ro, Si,
    Tam, Ti, To, Tru, Vi, Wim, Wo, Za, Zi""")
ENDS = items("""ba, bel, by, da, do, fi, ka, ko, la, lo, mo, na, nell, nia, no, pa, pin, ra, ri, ro, sha, so, ta, tin,
    tu, vi, wen, zo""")

# ---- values ---------------------------------------------------------------------------------------------------------

SIZES = items("""small, big, tall, round, old, narrow, cosy, crooked, quiet, red, blue, white, yellow, green, wooden,
    stone, brick, tiny, bright, painted""")
HOMES = items("""house, cottage, hut, cabin, tower, windmill, houseboat, tent, barn, tree house, castle, lighthouse,
    caravan, shop, mill, cave""")
WHERE = split("""by the river | near the forest | on a hill | in the village | at the edge of town | by the sea | on an
    island | under an oak | in the valley | next to the bakery | behind the school | at the end of the lane | near the
    harbor | beside the lake | in the mountains | by the railway | in a meadow | on the cliff | at the market square |
    in the old garden""")
JOBS = items("""baker, gardener, fisher, painter, teacher, postman, doctor, carpenter, singer, farmer, tailor, cook,
    librarian, clockmaker, sailor, beekeeper, guard, potter, weaver, toy maker, bus driver, singing coach, map maker,
    juggler, detective, nurse, shoemaker, lamp keeper, bookseller, ferryman, explorer, weather watcher, cheese maker,
    star gazer, kite maker, bell ringer, inventor, candle maker, storyteller, acrobat""")
JOB_WHERE = split("""at the market | in the village | at the harbor | in the big city | by the sea | at the castle | in
    the forest | at the school | on the island | at the station | in the mountains | at the town hall | by the lake | at
    the old mill | at the circus | in the next valley""")
LIKE_ADJ = items("""round, shiny, old, smooth, tiny, colorful, lost, broken, rare, striped, golden, silver, painted,
    odd, funny, blue, red, foreign, wooden, pretty""")
LIKE_THINGS = items("""stones, shells, buttons, stamps, feathers, bottles, keys, coins, leaves, postcards, marbles,
    maps, bells, teapots, hats, socks, books, spoons, pencils, clocks, toy cars, ribbons, acorns, puzzles, jars, paper
    boats, photos, seeds, beads""")
DISLIKE = split("""wet socks | loud alarm clocks | long lines | getting up early | cold baths | muddy shoes | broken
    promises | lost gloves | noisy neighbors | itchy sweaters | hot afternoons | washing dishes | rude guests | empty
    plates | late trains | heavy bags | sticky hands | flat tires | tidying up | being late | sour smells | strong wind
    | silly rules | boring speeches | rainy Mondays | losing at cards | waiting for the bus | being tickled | dirty
    windows | slow elevators | sand in shoes | buzzing flies | tight boots | squeaky doors | arguing at dinner | wasted
    food""")
FOOD_ADJ = items("warm, fresh, sweet, spicy, crispy, creamy, homemade, fried, baked, soft, salty, golden")
FOODS = items("""pumpkin soup, apple pie, noodles, potato cakes, pancakes, tomato pasta, cheese toast, plum cake, rice
    balls, carrot soup, fish stew, berry muffins, waffles, onion rings, corn bread, nut rolls, mushroom pie, bean stew,
    lemon tart, dumplings, roasted chestnuts, pizza, egg salad, honey bread, cherry cake, spinach pie, porridge,
    sandwiches, ginger cookies, blueberry jam""")
TOPPINGS = split("""with butter | with honey | with cream | with cheese | with herbs | with sea salt | with cinnamon |
    with raisins | with garlic | with maple syrup | with pepper | with walnuts | with lemon | with mustard | with
    chocolate""")
BAD_ADJ = items("cold, burnt, slimy, soggy, bitter, sour, lumpy, boiled, dry, watery, raw, green")
BAD_FOODS = items("""cabbage, turnips, fish sticks, oatmeal, liver, beets, olives, celery, broccoli, pea soup,
    cauliflower, radish salad, seaweed, onion soup, mushrooms, spinach, prunes, rice pudding, eggplant, bean paste""")
DRINK_ADJ = items("hot, cold, sweet, fresh, warm, iced, strong, spiced, foamy, weak")
DRINKS = items("""apple juice, mint tea, cocoa, lemonade, milk, ginger tea, berry juice, coconut water, pear cider,
    rose tea, coffee, orange juice, plum juice, almond milk, carrot juice, barley tea, grape juice, peach tea, melon
    juice, chocolate milk""")
DRINK_WITH = split("""with honey | with ice | with mint | with lemon | with cream | with cinnamon | with vanilla | with
    nutmeg | with sugar | with foam""")
FEARS = split("""the dark | deep water | big spiders | loud thunder | barking dogs | high ladders | ghosts in the attic
    | empty houses | lightning | strong storms | long tunnels | snakes in the grass | creaky stairs | the dentist |
    thick fog | getting lost | angry geese | clowns | owls at night | sharks | crowded trains | tiny rooms | speaking on
    a stage | wasps | fireworks | falling trees | slippery ice | old wells | shadows on the wall | dark forests |
    needles | being alone | giant waves | broken bridges | masks | the old cellar""")
REFUGES = split("""under the kitchen table | behind the curtain | in the big wardrobe | under a blanket | behind the
    stove | in an empty barrel | under the stairs | in a laundry basket | behind the sofa | inside a flower pot | under
    the bed | in a hollow tree | behind a stack of books | in the old bathtub | under a wide umbrella | inside a wooden
    box | behind the woodpile | in the pantry | under an upside down boat | inside a big drum""")
MOODS = items("""grumpy, shy, clever, lazy, brave, noisy, polite, sleepy, funny, gentle, proud, kind, wild, quiet,
    curious, old, young, tiny, plump, cheeky""")
ANIMALS = items("""gull, mole, crow, frog, goat, snail, hedgehog, badger, goose, donkey, turtle, beaver, squirrel,
    swan, lizard, raven, hamster, toad, bat, lamb, pony, parrot, swallow, weasel, moose, pelican, sparrow, crab,
    rooster, walrus, otter, seal""")
PETS = items("""snail, goldfish, beetle, hamster, canary, ladybug, turtle, mouse, cricket, tadpole, parrot, kitten,
    puppy, lizard, duckling, spider, worm, frog, moth, chick""")
PET_NAMES = items("""Dumpling, Pickle, Button, Pepper, Noodle, Muffin, Pebble, Clover, Peanut, Waffle, Bubbles, Ginger,
    Mango, Sprout, Acorn, Turnip, Toffee, Nutmeg, Whiskers, Plum, Olive, Thimble, Sock, Radish, Jelly, Marble, Twig,
    Crumb, Rocket, Tulip""")
HOBBIES = split("""painting [boats/birds/clouds/portraits/old doors] | building [model ships/sand castles/bird
    houses/wooden toys/snow forts] | flying [kites/paper planes] | growing [tomatoes/roses/giant
    pumpkins/herbs/sunflowers] | baking [bread/cookies/cakes for friends] | knitting [scarves/socks/tiny hats] | reading
    [adventure books/poems/old letters/comics] | fishing in the [river/lake/harbor] | dancing in the
    [kitchen/rain/moonlight] | juggling [apples/balls/eggs] | watching [birds/the stars/passing trains/clouds] | riding
    [a bicycle/a scooter] through town | climbing [trees/hills/rocks] | playing [chess/cards/football/hide and seek] |
    writing [poems/short stories/a diary] | repairing [clocks/old radios/bicycles/umbrellas] | skating on the
    [lake/pond] | making [paper boats/masks/candles/soap/puppets] | rowing on the [lake/river] | digging for
    [treasure/old bones/worms] | swimming in the [sea/river] | singing in the [choir/bath]""")
INSTRUMENTS = items("""flute, drum, violin, guitar, trumpet, piano, harp, accordion, banjo, tuba, harmonica, ukulele,
    cello, whistle, xylophone, tambourine, horn, triangle""")
INSTRUMENT_ADJ = items("small, old, wooden, tin, silver, red, borrowed, shiny, broken, blue, huge, golden")
PLAY = split("""very badly | very well | every evening | on Sundays | in the town band | only at night | for friends |
    with great joy | by ear | out of tune""")
HABITS = split("""humming [while cooking/in the bath/on the way home] | talking to [plants/the moon/old chairs/clouds]
    | counting [steps/clouds/birds/red doors] on every walk | writing letters to [the moon/strangers/far countries/the
    king] | whistling at [birds/the kettle/sunrise] | forgetting [keys/names/umbrellas/ the time] | drawing on
    [napkins/walls/foggy windows] | saying hello to every [dog/tree/snail/lamp post] | eating breakfast [in bed/twice/on
    the roof/standing up] | waving at [trains/boats/airplanes/the postman] | wearing [two different socks/boots in
    summer/a scarf indoors] | tapping on [tables/every door/wood for luck] | sleeping [late/with one eye open/in the
    afternoon] | telling jokes to [fish/the mirror/pigeons] | singing to [the soup/flowers/the cat next door] | hiding
    [notes/cookies/coins] in books | jumping over every [puddle/crack/step] | polishing [spoons/shoes/apples] | naming
    every [cloud/pebble/cup]""")
TREASURE_ADJ = items("""old, silver, golden, cracked, tiny, glass, painted, wooden, lucky, rusty, broken, heavy, green,
    magic""")
TREASURES = items("""key, compass, coin, music box, teapot, pocket watch, ring, map, lantern, shell, feather, bell,
    locket, spoon, marble, telescope, book, medal, mirror, button""")
TREASURE_FROM = split("""from the attic | from a shipwreck | from a great aunt | from the moon market | from the king |
    from the river bed | from a far country | from an old friend | from the fair | from the first day of school""")
DREAMS = split("""see [the northern lights/a whale/the desert/the big city/real snow/a volcano/the opera] | sail
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
AGES = items("""four, five, six, seven, eight, nine, ten, eleven, twelve, twenty, thirty, forty, fifty, sixty, seventy,
    ninety, one hundred""")
BIRTHDAYS = split("""in [early/late] [spring/summer/autumn/winter] | on a [snowy/stormy/starry/foggy/windy] night | on
    a [rainy/sunny/frosty/golden] morning | on the [first/last/longest/coldest/warmest] day of
    [spring/summer/autumn/winter/the year] | during [a great storm/the harvest/a full moon/the spring fair/a snowfall] |
    in [January/February/March/April/May/June/July/August/September/October/November/December]""")
COLOR_ADJ = items("dark, light, bright, pale, deep, soft")
COLORS = items("red, blue, green, yellow, orange, purple, pink, gray, brown, violet, white, gold, silver, black")
COLOR_NAMES = items("""sky blue, forest green, lemon yellow, cherry red, plum purple, moss green, snow white, honey
    gold, rose pink, pumpkin orange, midnight blue, mint green""")
DAYS = items("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")
CUSTOMS = items("""soup day, bath day, cake day, market day, letter day, cleaning day, music day, fishing day, pancake
    day, laundry day, picnic day, story day, game day, bread day, visiting day, garden day, pizza day, quiet day, noodle
    day, joke day""")
ELDERS = items("""Grandmother, Grandfather, Granny, Grandpa, Aunt, Uncle, Old Mother, Old Father, Nana, Captain,
    Professor, Master, Great-aunt, Miss, Mister""")
ELDER_NAMES = items("""Rose, Elm, Pearl, Willow, Flint, Juniper, Moss, Amber, Birch, Marigold, Stone, Thistle, Iris,
    Hawthorn, Lavender, Rowan, Ash, Violet, Copper, Maple, Sage, Heather, Barley, Cedar, Linden""")
SKILLS = split("""bake bread | tie knots | read the stars | swim | whistle | sew | mend shoes | cook soup | ride a
    horse | light a fire | climb trees | tell stories | paint | dance | row a boat | read maps | catch fish | grow beans
    | play cards | build a raft | write letters | sing | find mushrooms | repair clocks | speak to birds | make cheese |
    keep bees | skip stones""")
RIVAL_TITLES = items("Captain, Baron, Sir, Lady, Count, King, Queen, Doctor, Madam, Lord")
RIVAL_NAMES = items("""Grim, Snatch, Muddle, Thorn, Nip, Grumble, Sneer, Bramble, Hook, Fang, Scratch, Vinegar, Nettle,
    Rust, Sly, Growl, Prickle, Smirk""")
LOOT = items("""socks, cookies, apples, hats, letters, pencils, pies, keys, carrots, eggs, gloves, cakes, buttons,
    fish, tomatoes, shoelaces, candles, pillows, berries, spoons""")
BEDS = split("""in a [hammock/cradle/swing] [under the roof/by the window/on the porch/between two trees] | in a
    [basket/box/big drawer/bathtub] [by the stove/full of pillows/under the stairs/in the kitchen] | on a [straw
    bed/pile of leaves/wool rug/soft sofa] [in the attic/by the fire/near the door/under the window] | in [an old boat/a
    bunk bed/a hollow log/a giant shoe/a hay loft/a feather bed]""")
LULLABIES = split("""counting [sheep/stars/clouds/fish/raindrops/acorns/passing boats/apples] | listening to [the
    rain/the clock/the wind/old songs/the frogs/the sea] | humming [an old song/a slow tune/like a bee] | thinking of
    [cake/summer/home/far islands/kind words] | reading [a map/one poem/the same book] | hugging [a pillow/a toy bear/a
    warm stone]""")
WEATHERS = split("""soft rain | fresh snow | warm sunshine | thick fog | wild wind | summer thunderstorms | cloudy
    mornings | cold clear nights | a light breeze | rainbows after rain | frosty mornings | golden autumn days | gentle
    spring rain | hot summer days""")
THINGS = items("""boat, bicycle, kettle, lamp, stove, cart, umbrella, clock, sled, broom, bed, chair, balloon, teapot,
    wagon, radio""")
THING_NAMES = items("""Old Thunder, Mister Puff, Lady Wobble, Dandelion, Big Bertha, Little Wind, Sunbeam, Captain
    Rust, Swift, Miss Rattle, Bluebell, Grandpa Squeak, Starlight, Tumble, Madam Steam, Butterfly, Brave Betty, Doctor
    Tick, Moonbeam, Comet, Thunderbolt, Snowflake, Professor Clank, Daisy Bell""")
PARTS = items("stairs, windows, doors, rooms, chimneys, shelves, lamps, clocks, chairs, mirrors, pots, roof tiles")
CRY_A = items("""Bells, Stars, Honey, Moons, Berries, Feathers, Acorns, Apples, Clouds, Pickles, Boots, Pebbles, Drums,
    Carrots, Kettles, Ribbons, Pancakes, Turnips""")
CRY_B = items("""breezes, whiskers, rainbows, bumblebees, buttons, puddles, waffles, raindrops, mushrooms,
    lightning, cinnamon, snowflakes, onions, trumpets, sunshine""")
CRIES = split("""{A} and {b}! | Oh, {a} and {b}! | Oh my {b}! | Holy {b}! | By my {b}! | Jumping {a}! | Sweet {a} and
    {b}! | Well, butter my {b}! | Hop, skip and {b}! | Up and away! | One step at a time! | Never say never! | Bit by
    bit! | That is the spirit! | Easy as pie! | Onward we go! | Fiddle and fudge! | Heads up, tails up! | Slow and
    steady! | Onward, and mind the {b}! | Tick, tock, {b}!""")
NICK_ADJ = items("little, dear, sweet, brave, bright, my, good, clever")
NICKS = items("""friend, star, cloud, neighbor, acorn, pumpkin, sunshine, captain, chief, traveler, buddy, pal,
    sparrow, cookie, champion, wanderer, partner, guest, button, explorer""")
