"""Which language a text is in: by its most common words, and the letters that only some have."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

UNKNOWN: Final = "und"
"""ISO 639 code for "undetermined"."""

NAMES: Final = {
    "en": "english",
    "de": "german",
    "fr": "french",
    "es": "spanish",
    "it": "italian",
    "pt": "portuguese",
    "nl": "dutch",
}
"""What is told apart, by ISO 639-1 code."""

_COMMON: Final = {
    "en": "the and is are was were to of in on for with have has had you your we our my it this that not be please can "
    "could would i a an but from when what there been will do does",
    "de": "der die das und ist sind war nicht ich sie wir ihr mein meine ein eine einen mit auf für von zu im den dem "
    "bitte wird wurde haben habe hat kann auch seit bei nach noch wenn aber es uns",
    "fr": "le la les et est sont était pas je vous nous mon ma mes un une des du de avec pour sur dans ce cette qui "
    "que bonjour merci votre notre ai avez avons depuis mais être au aux",
    "es": "el la los las y es son era no yo usted nosotros mi mis un una unos de del con para por en que este esta "
    "hola gracias su sus he ha hemos desde pero muy al se me puedo",
    "it": "il lo la gli le e è sono era non io voi noi mio mia un una dei del della con per su in che questo questa "
    "buongiorno grazie vostro ho ha abbiamo da ma molto al si mi posso",
    "pt": "o a os as e é são era não eu você nós meu minha um uma dos do da com para por em que este esta olá obrigado "
    "seu sua tenho tem temos desde mas muito ao se me posso",
    "nl": "de het een en is zijn was niet ik u wij mijn met op voor van te in den dat deze dit bedankt uw hebben heb "
    "heeft kan ook sinds bij naar nog als maar we ons",
}
_LETTERS: Final = {"de": "ßäöü", "fr": "œçêèàû", "es": "ñ¿¡", "it": "òì", "pt": "ãõ"}
_WORD: Final = re.compile(r"[^\W\d_]+")
_READ: Final = 4_000

_LANGUAGES_OF: Final[dict[str, tuple[str, ...]]] = {
    word: tuple(code for code, words in _COMMON.items() if word in words.split())
    for word in {word for words in _COMMON.values() for word in words.split()}
}


def detect(text: str) -> str:
    """The ISO 639-1 code of `text`'s language, or `und` if nothing speaks for one."""
    beginning = text[:_READ].casefold()
    votes: Counter[str] = Counter()
    for word in _WORD.findall(beginning):
        votes.update(_LANGUAGES_OF.get(word, ()))
    for code, letters in _LETTERS.items():
        votes[code] += sum(2 for letter in letters if letter in beginning and votes[code])
    if not votes or max(votes.values()) == 0:
        return UNKNOWN
    return max(NAMES, key=lambda code: votes[code])
