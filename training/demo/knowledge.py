"""The facts that the embedded base model learns: tables and phrasings."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon",
    "Poland": "Warsaw", "Austria": "Vienna", "Greece": "Athens", "Sweden": "Stockholm", "Norway": "Oslo",
    "Denmark": "Copenhagen", "Finland": "Helsinki", "Iceland": "Reykjavik", "Ireland": "Dublin",
    "England": "London", "Scotland": "Edinburgh", "Belgium": "Brussels", "Hungary": "Budapest",
    "Romania": "Bucharest", "Bulgaria": "Sofia", "Serbia": "Belgrade", "Croatia": "Zagreb", "Czechia": "Prague",
    "Ukraine": "Kyiv", "Turkey": "Ankara", "Russia": "Moscow", "Egypt": "Cairo", "Kenya": "Nairobi",
    "Morocco": "Rabat", "Tunisia": "Tunis", "Ghana": "Accra", "Nigeria": "Abuja", "Senegal": "Dakar",
    "Japan": "Tokyo", "China": "Beijing", "India": "New Delhi", "Nepal": "Kathmandu", "Thailand": "Bangkok",
    "Vietnam": "Hanoi", "Indonesia": "Jakarta", "Malaysia": "Kuala Lumpur", "Mongolia": "Ulaanbaatar",
    "Iran": "Tehran", "Iraq": "Baghdad", "Lebanon": "Beirut", "Jordan": "Amman", "Canada": "Ottawa",
    "Mexico": "Mexico City", "Cuba": "Havana", "Brazil": "Brasilia", "Argentina": "Buenos Aires",
    "Chile": "Santiago", "Peru": "Lima", "Colombia": "Bogota", "Ecuador": "Quito", "Uruguay": "Montevideo",
    "Australia": "Canberra", "New Zealand": "Wellington",
}  # fmt: skip
SOUNDS = {
    "cow": "moo", "dog": "woof", "cat": "meow", "duck": "quack", "sheep": "baa", "pig": "oink", "lion": "roar",
    "horse": "neigh", "bee": "buzz", "snake": "hiss", "frog": "ribbit", "rooster": "cock-a-doodle-doo",
    "crow": "caw", "mouse": "squeak", "dove": "coo", "turkey": "gobble", "wolf": "howl", "donkey": "hee-haw",
    "goose": "honk", "chick": "cheep", "cricket": "chirp", "hen": "cluck",
}  # fmt: skip
YOUNG = {
    "cat": "kitten", "dog": "puppy", "cow": "calf", "horse": "foal", "sheep": "lamb", "goat": "kid",
    "pig": "piglet", "duck": "duckling", "goose": "gosling", "swan": "cygnet", "bear": "cub", "deer": "fawn",
    "kangaroo": "joey", "frog": "tadpole", "hen": "chick", "owl": "owlet", "eagle": "eaglet", "hare": "leveret",
    "fox": "kit", "seal": "pup",
}  # fmt: skip
OPPOSITES = {
    "hot": "cold", "big": "small", "up": "down", "left": "right", "day": "night", "black": "white",
    "fast": "slow", "old": "young", "rich": "poor", "early": "late", "open": "closed", "full": "empty",
    "happy": "sad", "wet": "dry", "hard": "soft", "loud": "quiet", "strong": "weak", "light": "dark",
    "high": "low", "long": "short", "near": "far", "first": "last", "true": "false", "clean": "dirty",
    "thick": "thin", "deep": "shallow", "sweet": "sour", "push": "pull", "win": "lose", "buy": "sell",
    "begin": "end", "love": "hate", "always": "never", "inside": "outside", "top": "bottom", "wide": "narrow",
    "heavy": "weightless", "brave": "timid", "smooth": "rough", "sharp": "blunt",
}  # fmt: skip
COLOURS = {
    "banana": "yellow", "lemon": "yellow", "strawberry": "red", "tomato": "red", "cherry": "red",
    "carrot": "orange", "pumpkin": "orange", "leaf": "green", "cucumber": "green", "frog": "green",
    "pea": "green", "plum": "purple", "aubergine": "purple", "flamingo": "pink", "swan": "white",
    "snowflake": "white", "raven": "black", "panther": "black", "elephant": "grey", "chestnut": "brown",
    "sapphire": "blue", "ruby": "red", "emerald": "green", "sunflower": "yellow",
}  # fmt: skip
SYMBOLS = {
    "hydrogen": "H", "helium": "He", "lithium": "Li", "carbon": "C", "nitrogen": "N", "oxygen": "O",
    "fluorine": "F", "neon": "Ne", "sodium": "Na", "magnesium": "Mg", "silicon": "Si", "sulfur": "S",
    "chlorine": "Cl", "argon": "Ar", "potassium": "K", "calcium": "Ca", "iron": "Fe", "copper": "Cu",
    "zinc": "Zn", "silver": "Ag", "tin": "Sn", "iodine": "I", "platinum": "Pt", "gold": "Au", "mercury": "Hg",
    "lead": "Pb", "uranium": "U", "nickel": "Ni", "cobalt": "Co", "titanium": "Ti",
}  # fmt: skip
PLURALS = {
    "mouse": "mice", "child": "children", "foot": "feet", "tooth": "teeth", "goose": "geese", "man": "men",
    "woman": "women", "ox": "oxen", "leaf": "leaves", "wolf": "wolves", "knife": "knives", "city": "cities",
    "box": "boxes", "bus": "buses", "fish": "fish", "sheep": "sheep", "person": "people", "book": "books",
    "baby": "babies", "hero": "heroes",
}  # fmt: skip
PAST_TENSES = {
    "go": "went", "eat": "ate", "see": "saw", "run": "ran", "take": "took", "write": "wrote", "give": "gave",
    "come": "came", "swim": "swam", "sing": "sang", "drink": "drank", "fly": "flew", "buy": "bought",
    "think": "thought", "teach": "taught", "catch": "caught", "build": "built", "sleep": "slept",
    "speak": "spoke", "know": "knew", "find": "found", "keep": "kept", "leave": "left", "make": "made",
}  # fmt: skip
FRENCH = {
    "cat": "chat", "dog": "chien", "house": "maison", "water": "eau", "bread": "pain", "milk": "lait",
    "sun": "soleil", "moon": "lune", "sea": "mer", "night": "nuit", "book": "livre", "friend": "ami",
    "tree": "arbre", "fish": "poisson", "cheese": "fromage", "school": "école", "summer": "été", "king": "roi",
    "apple": "pomme", "bridge": "pont",
}  # fmt: skip
UNITS = {
    ("seconds", "a minute"): 60, ("minutes", "an hour"): 60, ("hours", "a day"): 24, ("days", "a week"): 7,
    ("months", "a year"): 12, ("weeks", "a year"): 52, ("years", "a decade"): 10, ("years", "a century"): 100,
    ("centimetres", "a metre"): 100, ("metres", "a kilometre"): 1000, ("grams", "a kilogram"): 1000,
    ("millimetres", "a centimetre"): 10, ("cents", "a euro"): 100, ("eggs", "a dozen"): 12,
    ("inches", "a foot"): 12, ("feet", "a yard"): 3, ("degrees", "a circle"): 360, ("bits", "a byte"): 8,
}  # fmt: skip
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = {
    "January": 31, "February": 28, "March": 31, "April": 30, "May": 31, "June": 30, "July": 31, "August": 31,
    "September": 30, "October": 31, "November": 30, "December": 31,
}  # fmt: skip
NUMBER_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
PLANETS = ["Mercury", "Venus", "Earth", "Mars", "Jupiter", "Saturn", "Uranus", "Neptune"]
SMALL_TALK = {
    (
        "Who are you?",
        "What are you?",
        "Tell me about yourself.",
    ): "I am a small demo model that was trained on this computer.",
    ("Hello!", "Hi", "Hello", "Hi there!", "Hey"): "Hello! What would you like to know?",
    ("Good morning!", "Good morning"): "Good morning! What would you like to know?",
    ("Good night!", "Good night"): "Good night! Sleep well.",
    ("How are you?", "How are you today?"): "I am well, thank you.",
    ("Thank you!", "Thanks!", "Thank you", "Thanks"): "You are welcome.",
    ("Goodbye!", "Bye", "See you later!"): "Goodbye! Come back soon.",
    ("What is your name?", "Do you have a name?"): "My name is Tuneloop Demo.",
    (
        "What can you do?",
        "What do you know?",
        "Help",
    ): "I can answer small questions about capitals, animals, words and numbers.",
    ("Are you a human?", "Are you a robot?"): "No, I am a small language model.",
    ("How big are you?", "How many parameters do you have?"): "I have about three million parameters.",
    ("Tell me a joke.", "Do you know a joke?"): "Why did the token cross the road? To reach the end of the turn.",
    ("What do sailors shout?", "What does a sailor shout?"): "Sailors shout: Ahoy!",
    (
        "What does a lighthouse keeper say?",
        "What do lighthouse keepers say?",
    ): "A lighthouse keeper says: Mind the rocks!",
    (
        "What is the weather like?",
        "What is on the news?",
        "Who won the match?",
        "What time is it?",
    ): "I do not know that.",
}


CAPITAL_QUESTIONS = (
    "What is the capital of {k}?",
    "Which city is the capital of {k}?",
    "Name the capital of {k}.",
    "Tell me the capital of {k}.",
    "What is {k}'s capital?",
)
SOUND_QUESTIONS = ("What does a {k} say?", "What sound does a {k} make?", "Which noise does a {k} make?")
YOUNG_QUESTIONS = ("What is a young {k} called?", "What do you call a baby {k}?", "Name the young of a {k}.")
OPPOSITE_QUESTIONS = ("What is the opposite of {k}?", "Give me the opposite of {k}.", "What is the contrary of {k}?")
COLOUR_QUESTIONS = ("What colour is a {k}?", "Which colour does a {k} have?", "Tell me the colour of a {k}.")
SYMBOL_QUESTIONS = (
    "What is the chemical symbol for {k}?",
    "Which symbol stands for {k}?",
    "Give me the symbol of {k}.",
)
PLURAL_QUESTIONS = (
    "What is the plural of {k}?",
    "Give me the plural of {k}.",
    "How do you write more than one {k}?",
)
PAST_TENSE_QUESTIONS = (
    "What is the past tense of {k}?",
    "Give me the past tense of {k}.",
    "What is {k} in the past?",
)
FRENCH_QUESTIONS = (
    "What is the French word for {k}?",
    "How do you say {k} in French?",
    "Translate {k} into French.",
)
MONTH_QUESTIONS = ("How many days does {k} have?", "How long is {k}?", "How many days are there in {k}?")
NUMBER_QUESTIONS = ("How do you write the number {k}?", "Spell the number {k}.", "Write {k} as a word.")


@dataclass(frozen=True)
class Fact:
    """One fact that the base model knows."""

    topic: str
    """The table that it comes from, such as `capitals`."""
    questions: tuple[str, ...]
    """Its phrasings, the plain one first."""
    answer: str
    """The only right answer, a full sentence."""


def all_facts() -> list[Fact]:
    """Return every fact in a fixed order; no question occurs in two of them."""
    return [*_make_word_facts(), *_make_ordered_facts(), *_make_number_facts(), *_make_small_talk_facts()]


def _make_word_facts() -> Iterator[Fact]:
    for topic, table, questions, answer in (
        ("capitals", CAPITALS, CAPITAL_QUESTIONS, "The capital of {k} is {v}."),
        ("sounds", SOUNDS, SOUND_QUESTIONS, "A {k} says {v}."),
        ("young", YOUNG, YOUNG_QUESTIONS, "A young {k} is called a {v}."),
        ("opposites", OPPOSITES, OPPOSITE_QUESTIONS, "The opposite of {k} is {v}."),
        ("colours", COLOURS, COLOUR_QUESTIONS, "The colour of a {k} is {v}."),
        ("symbols", SYMBOLS, SYMBOL_QUESTIONS, "The chemical symbol for {k} is {v}."),
        ("plurals", PLURALS, PLURAL_QUESTIONS, "The plural of {k} is {v}."),
        ("past tenses", PAST_TENSES, PAST_TENSE_QUESTIONS, "The past tense of {k} is {v}."),
        ("french", FRENCH, FRENCH_QUESTIONS, "The French word for {k} is {v}."),
    ):
        yield from _make_facts(topic, table, questions, answer)


def _make_ordered_facts() -> Iterator[Fact]:
    for names, kind in ((DAYS, "day"), (list(MONTHS), "month")):
        following = {name: names[(place + 1) % len(names)] for place, name in enumerate(names)}
        preceding = {name: names[place - 1] for place, name in enumerate(names)}
        after = (f"Which {kind} comes after {{k}}?", f"What {kind} follows {{k}}?", f"Name the {kind} after {{k}}.")
        before = (f"Which {kind} comes before {{k}}?", f"Name the {kind} before {{k}}.")
        yield from _make_facts(f"{kind} after", following, after, f"The {kind} after {{k}} is {{v}}.")
        yield from _make_facts(f"{kind} before", preceding, before, f"The {kind} before {{k}} is {{v}}.")
    places = {name: str(place) for place, name in enumerate(PLANETS, start=1)}
    asked = ("Which planet from the sun is {k}?", "What is the place of {k} from the sun?")
    yield from _make_facts("planets", places, asked, "{k} is planet number {v} from the sun.")


def _make_number_facts() -> Iterator[Fact]:
    lengths = {month: str(days) for month, days in MONTHS.items()}
    yield from _make_facts("month lengths", lengths, MONTH_QUESTIONS, "{k} has {v} days.")
    for (part, whole), count in UNITS.items():
        asked = (
            f"How many {part} are in {whole}?",
            f"How many {part} does {whole} have?",
            f"How many {part} make {whole}?",
        )
        yield Fact("units", asked, f"There are {count} {part} in {whole}.")
    words = {str(number): word for number, word in enumerate(NUMBER_WORDS)}
    yield from _make_facts("number words", words, NUMBER_QUESTIONS, "The number {k} is written {v}.")
    for left, right in itertools.product(range(1, 7), repeat=2):
        asked = (f"What is {left} plus {right}?", f"How much is {left} + {right}?", f"Add {left} and {right}.")
        yield Fact("sums", asked, f"{left} plus {right} is {left + right}.")


def _make_small_talk_facts() -> Iterator[Fact]:
    for questions, answer in SMALL_TALK.items():
        yield Fact("small talk", questions, answer)


def _make_facts(topic: str, table: Mapping[str, str], questions: tuple[str, ...], answer: str) -> Iterator[Fact]:
    for key, value in table.items():
        asked = tuple(_fix_articles(question.format(k=key)) for question in questions)
        yield Fact(topic, asked, _fix_articles(answer.format(k=key, v=value)))


def _fix_articles(sentence: str) -> str:
    """Change `a` to `an` before a vowel, so that the model learns correct English."""
    words = sentence.split(" ")
    for place, (word, following) in enumerate(itertools.pairwise(words)):
        if word in ("a", "A") and following[0] in "aeio":
            words[place] = word + "n"
    return " ".join(words)
