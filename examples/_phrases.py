"""Sentences of numbers, days and shopping in German and English, written by rules."""

from __future__ import annotations

import random

Pairs = list[tuple[str, str]]
"""Sentences and their translations."""

ONES = {"null": "zero", "eins": "one", "zwei": "two", "drei": "three", "vier": "four", "fünf": "five", "sechs": "six"}
ONES |= {"sieben": "seven", "acht": "eight", "neun": "nine", "zehn": "ten", "elf": "eleven", "zwölf": "twelve"}
ONES |= {"dreizehn": "thirteen", "vierzehn": "fourteen", "fünfzehn": "fifteen", "sechzehn": "sixteen"}
ONES |= {"siebzehn": "seventeen", "achtzehn": "eighteen", "neunzehn": "nineteen"}
TENS = {"zwanzig": "twenty", "dreißig": "thirty", "vierzig": "forty", "fünfzig": "fifty", "sechzig": "sixty"}
TENS |= {"siebzig": "seventy", "achtzig": "eighty", "neunzig": "ninety"}
DAYS = {"Montag": "Monday", "Dienstag": "Tuesday", "Mittwoch": "Wednesday", "Donnerstag": "Thursday"}
DAYS |= {"Freitag": "Friday", "Samstag": "Saturday", "Sonntag": "Sunday"}
PEOPLE = {"die Frau": "the woman", "der Mann": "the man", "mein Bruder": "my brother", "unsere Lehrerin": "our teacher"}
PEOPLE |= {"das Kind": "the child", "der Nachbar": "the neighbour", "Anna": "Anna", "Jonas": "Jonas"}
THINGS = {"Äpfel": "apples", "Bücher": "books", "Briefe": "letters", "Karten": "tickets", "Eier": "eggs"}
THINGS |= {"Stühle": "chairs", "Brote": "loaves", "Rosen": "roses"}
DEEDS = {"gekauft": "bought", "verkauft": "sold", "gezählt": "counted", "gefunden": "found", "bestellt": "ordered"}
DEEDS |= {"verloren": "lost"}


def german(n: int) -> str:
    """Return a number below 1,000 in words: 321 is "dreihunderteinundzwanzig"."""
    words = list(ONES)
    before = ["", "ein", *words[2:10]]  # "eins" stands alone only
    if n >= 100:
        return before[n // 100] + "hundert" + (german(n % 100) if n % 100 else "")
    if n < 20:
        return words[n]
    return (before[n % 10] + "und" if n % 10 else "") + list(TENS)[n // 10 - 2]


def english(n: int) -> str:
    """Return a number below 1,000 in words: 321 is "three hundred and twenty-one"."""
    words = list(ONES.values())
    if n >= 100:
        return words[n // 100] + " hundred" + (" and " + english(n % 100) if n % 100 else "")
    if n < 20:
        return words[n]
    return list(TENS.values())[n // 10 - 2] + ("-" + words[n % 10] if n % 10 else "")


def written_from_rules(count: int) -> Pairs:
    """Return different sentences of numbers, times and shopping, in which the order of the two languages differs."""
    draw = random.Random(0)

    def pick(words: dict[str, str]) -> tuple[str, str]:
        return draw.choice(list(words.items()))

    pairs = dict[str, str]()
    while len(pairs) < count:
        (day, on), (who, subject), (what, things), (done, did) = map(pick, (DAYS, PEOPLE, THINGS, DEEDS))
        n, hour = draw.randrange(2, 1000), draw.randrange(2, 12)
        clock, at = draw.choice(
            [
                (f"um {german(hour)} Uhr", f"at {english(hour)} o'clock"),
                (f"um halb {german(hour)}", f"at half past {english(hour - 1)}"),  # half nine is half past eight
            ]
        )
        source = f"Am {day} {clock} hat {who} {german(n)} {what} {done}."
        pairs[source] = f"{subject[:1].upper()}{subject[1:]} {did} {english(n)} {things} on {on} {at}."
    return list(pairs.items())


def tree_of(sentence: str) -> tuple[list[str], list[int]]:
    """Return the words of an English sentence by these rules, and the place of each one's head, from 1; 0 for the root.

    The relations are those of Universal Dependencies: the verb governs the subject, the object and the two times, a
    noun its determiner and number, a time its preposition, "hundred" what is counted and added.
    """
    words = [*sentence.removesuffix(".").split(), "."]
    place = {word: k for k, word in enumerate(words, 1)}
    verb = next(k for k, word in enumerate(words, 1) if word in DEEDS.values())
    thing = next(k for k, word in enumerate(words, 1) if word in THINGS.values())
    heads = [verb] * len(words)  # the day, the full stop, and the subject
    heads[verb - 1] = 0
    if verb == 3:
        heads[0] = 2  # the determiner of the subject
    number = place.get("hundred", thing - 1)
    for k in range(verb + 1, thing):
        heads[k - 1] = number
    if "and" in place:
        heads[place["and"] - 1] = thing - 1
    heads[number - 1], heads[thing - 1] = thing, verb
    heads[place["on"] - 1] = place["on"] + 1
    at = place["at"]
    last = len(words) - 1
    if words[at] == "half":  # at half past seven
        heads[at - 1], heads[at], heads[last - 2], heads[last - 1] = at + 1, verb, last, at + 1
    else:  # at seven o'clock
        heads[at - 1], heads[at], heads[last - 1] = last, last, verb
    return words, heads
