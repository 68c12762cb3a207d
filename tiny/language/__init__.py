"""The language of the embedded base: invented personas, what is true of them, how they talk, and real English.

    personas.py    a persona, put together by chance               tables/people.json, manners.json
    facts.py       what is true of it, in many wordings            tables/facts.json, descriptions.json
    talk.py        exchanges and whole prompts                     tables/chat.json
    moments.py     a dialogue from which a picture follows         tables/moments.json
    stories.py     tiny tales and true sentences                   tables/tales.json
    english.py     conversations of people, from two packages
    templates.py   how a template becomes a sentence

Every reply follows from what stands in its prompt, or from what the base learned by heart about that persona. So the
base can be pre-trained on millions of different exchanges that are simple, warm, grammatical, and true.
"""
from tiny.language.facts import description, facts, facts_behind, kinds, knowledge, opening, profile, statement
from tiny.language.moments import Moment, moment
from tiny.language.personas import LOOKS, Persona, random_name, random_persona, unheard
from tiny.language.stories import story
from tiny.language.talk import Conversation, Exchange, chat, conversation, topics
from tiny.language.templates import table

__all__ = ["Conversation", "Exchange", "LOOKS", "Moment", "Persona", "chat", "conversation", "description",
           "facts", "facts_behind", "kinds", "knowledge", "moment", "opening", "profile", "random_name",
           "random_persona", "statement", "story", "table", "topics", "unheard"]
