"""Recognises payment card, bank account and telephone numbers by form and check digits."""

from __future__ import annotations

import re

# Letters and digits of an IBAN by country (SWIFT IBAN Registry, release 99).
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FK FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH CR HR LI LV",
        22: "BG BH DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}

# First digits and lengths by network: Visa, Mastercard, American Express, Diners, Discover, JCB, UnionPay. Visa's old
# length of 13 is left out: no such card is in use, and results of calculations have that length.
_CARD = re.compile(
    r"4(?:\d{15}|\d{18})"
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"
    r"|3[47]\d{13}"
    r"|3(?:0[0-5]|[689]\d)\d{11}"
    r"|(?:6011|65\d\d|64[4-9]\d)\d{12,15}"
    r"|35(?:2[89]|[3-8]\d)\d{12,15}"
    r"|62\d{14,17}"
)

# Forms that are always telephone numbers; other long numbers are left alone.
_PHONES = re.compile(
    r"(?:\+|\(\+)[1-9]\d{0,2}\)?[ ().\-/]*\d(?:[ ().\-/]{0,2}\d){5,13}"  # E.164: at most 15 digits
    r"|(?:1[ .-])?\([2-9]\d{2}\) ?[2-9]\d{2}[ .-]\d{4}"  # North America: (212) 555-0123
    r"|(?:1[ .-])?[2-9]\d{2}([ .-])[2-9]\d{2}\1\d{4}"
    r"|1[3-9]\d([ -]?)\d{4}\2\d{4}"  # mobile, China: 138 1234 5678
    r"|0\d{2,3}-[2-9]\d{6,7}"  # landline, China: 010-62345678
    r"|\(0\d{1,4}\)[ -]?\d(?:[ -]?\d){5,8}"
    r"|0\d{1,4}[ /-]\d{2,4}(?:[ -]?\d{2,4}){1,3}"  # with the trunk prefix 0: most of Europe, Asia, Africa
    r"|0[1-9]\d{8,9}"
    r"|00[1-9]\d(?:[ -]?\d){7,12}"  # international, dialled
)
_DATE_LIKE = re.compile(r"\d{1,2}([./-])\d{1,2}\1\d{2,4}|\d{4}([./-])\d{1,2}\2\d{1,2}.*")


def is_card_number(digits: str) -> bool:
    """Return whether `digits` has a network's form and the right check digit (Luhn, ISO/IEC 7812-1)."""
    return _CARD.fullmatch(digits) is not None and _passes_luhn(digits)


def _passes_luhn(digits: str) -> bool:
    doubled = [2 * int(digit) for digit in digits[-2::-2]]
    return (
        sum(int(digit) for digit in digits[-1::-2]) + sum(number - 9 * (number > 9) for number in doubled)
    ) % 10 == 0


def iban_length(candidate: str) -> int:
    """Return the length of the valid IBAN at the start of `candidate`, including blanks; 0 if there is none."""
    wanted = _IBAN_LENGTHS.get(candidate[:2], 0)
    places = [place for place, character in enumerate(candidate) if character not in " -"][:wanted]
    if not wanted or len(places) < wanted:
        return 0
    end = places[-1] + 1
    if candidate[end : end + 1].isalnum():
        return 0
    letters = "".join(candidate[place] for place in places)
    # ISO 7064 mod 97-10: country and check digits go to the end, letters become 10 to 35.
    valid = int("".join(str(int(character, 36)) for character in letters[4:] + letters[:4])) % 97 == 1
    return end if valid else 0


def is_phone_number(candidate: str) -> bool:
    """Return whether `candidate` has the form of a telephone number of one of the plans above, and isn't a date."""
    plain = _DATE_LIKE.fullmatch(candidate) or candidate.startswith("000") or not set(candidate) & set("23456789")
    return not plain and _PHONES.fullmatch(candidate) is not None
