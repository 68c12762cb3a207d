"""For each kind of fact about a persona: its answer and its wordings. facts and knowledge in language.py use them.

Many wordings are the point: a fact taught in one of them must be found by another. The first two of the statements are
the plainest, and serve as the whole sentences among the answers.
"""

from __future__ import annotations

# kind: (answer, asked about the persona, stated about the persona, asked to the persona, said by the persona)
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
