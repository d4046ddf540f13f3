"""How a stranger's words are put into a message. It refuses to know whose they are.

A file's or a tensor's name may be a megabyte long, turn the text around, or hold half a character, which JSON can't
carry to the client. Such a name must not break the answer that refuses it.
"""

MOST_CHARACTERS = 120


def shown(text: object) -> str:
    """`text` for a reader: at most 120 characters, what can't be printed written as an escape."""
    whole = str(text)
    cut = whole[:MOST_CHARACTERS]
    plain = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in cut)
    return plain + ("…" if len(whole) > MOST_CHARACTERS else "")


def shown_value(value: object) -> str:
    """A value from a JSON file as Python writes it, shortened in the same way."""
    return shown(repr(value))
