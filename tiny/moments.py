"""What is said in a moment, and what the picture then shows.

Each attribute of a scene has lines of the user and lines of the persona that imply it, and words for the thinking that
leads from what was said to what has to be seen. The keys are the values of scene.py; moment in language.py combines.
"""

from __future__ import annotations

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

HERE = "You are {spot}! | Here you are, {spot}! | So we meet {spot}! | We are {spot}."
OPEN_AIR = ("tent", "campfire", "snowman")                 # what nobody puts into a room
