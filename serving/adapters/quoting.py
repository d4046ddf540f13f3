"""Quoting of untrusted text in messages.

A file's or a tensor's name may be a megabyte long, reverse the text direction, or contain a lone surrogate, which JSON
can't carry to the client. Such a name must not break the error response about it.
"""

MOST_CHARACTERS = 120


def quote(text: object) -> str:
    """Return `text` for display: at most 120 characters, unprintable ones escaped."""
    whole = str(text)
    cut = whole[:MOST_CHARACTERS]
    plain = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in cut)
    return plain + ("…" if len(whole) > MOST_CHARACTERS else "")


def quote_value(value: object) -> str:
    """Return a value from a JSON file as its Python repr, shortened in the same way."""
    return quote(repr(value))
