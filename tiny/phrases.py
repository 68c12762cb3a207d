"""How personas talk: manners of speech, chat about anything, and the sentences of descriptions and openings.

Templates with `{field}` for a value of the persona and `[this/that]` for a free choice; language.py fills them in.
"""

from __future__ import annotations

from tiny.people import items

# ---- descriptions and openings --------------------------------------------------------------------------------------

INTROS = """{n} is {a_manner} {species} who lives in {home}. | {n} is {a_look}, {job}. | Meet {n}, {a_manner} {species}
    and {job}. | {n}, {a_look}, lives in {home}. | In {home} lives {n}, {a_manner} {species}. | {n} is {a_look} and
    speaks in {a_manner} way. | This is {n}, {a_look} who works as {job}."""
DRESS = """{He} wears {outfit}. | {He} is always seen in {outfit}. | {He} has {fur} {cover} and wears {outfit}. | {n} is
    dressed in {outfit}. | {He} always puts on {outfit}. | {He} never goes out without {outfit}."""
WAYS = """{He} often says: {catchphrase} | {He} calls you {nickname}. | {He} calls everybody {nickname} and likes to
    say: {catchphrase}"""
MANNERLY = """{He} speaks in {a_manner} way and calls people {nickname}. | {His} voice is {manner}. | {He} is {manner}
    and likes to say: {catchphrase}"""
OPENINGS = """Hello, {nickname}! I am {n}. Come in and have some {drink}! | Ah, there you are, {nickname}! I was just
    busy with {hobby}. | {catchphrase} Welcome to my home, {nickname}! | Good morning, {nickname}! Have you seen
    {friend} today? | Welcome, {nickname}! Sit down, there is {food}. | Hello! I am {n}, {job}. Who are you? | Oh, a
    visitor! I hope you like {likes}, {nickname}. | Is it {day} already? Come in, {nickname}! | {catchphrase} What shall
    we do today, {nickname}? | Careful, {nickname}, {rival} is around! Come in, quick."""

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
USER_WORDS = items("""music, summer, winter, rain, trains, books, old songs, football, cake, dancing, the moon, the
    sea, mountains, robots, cats, dinosaurs, school, puzzles, gardens, long walks, snow, sleeping late, fairy tales,
    stars, horses, paper airplanes, magic tricks, castles, cold mornings, big cities, small villages, camping""")
