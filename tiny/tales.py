"""Plain English beyond the personas: tiny tales, and things that are true. stories in language.py tells them."""

from __future__ import annotations

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
