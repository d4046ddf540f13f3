"""Finds personal data in texts by form and check digits, and masks it; no names or addresses. Imports no torch.

find_personal_data("Mail jo@example.org or call +49 30 123456")  # two findings, with their positions
mask_personal_data("Mail jo@example.org")                        # ("Mail [EMAIL]", ("email",))
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from training.data.cleaning.personal_numbers import iban_length, is_card_number, is_phone_number

PersonalDataKind = Literal["email", "phone", "payment_card", "iban", "ip_address", "us_ssn", "cn_resident_id"]
PERSONAL_DATA_KINDS: tuple[PersonalDataKind, ...] = get_args(PersonalDataKind)
MASKS: dict[PersonalDataKind, str] = {kind: f"[{kind.upper()}]" for kind in PERSONAL_DATA_KINDS}
"""The replacement for each kind."""

_NOT_DIGITS = bytes(set(range(256)) - set(b"0123456789"))
_FEWEST_DIGITS = 4
"""Digits of the shortest number searched for, an IPv4 address such as 8.8.8.8."""
_NUMBER = re.compile(r"\d[\d ().\-/]{5,}\d", re.ASCII)
"""Seven characters of digits and separators: all numbers but IPv6 addresses contain that."""
_COLONS = 7
"""Colons of an IPv6 address that isn't shortened by `::`."""


@dataclass(frozen=True)
class PersonalData:
    """One finding, at `text[start:end]`."""

    kind: PersonalDataKind
    start: int
    end: int


def find_personal_data(text: str) -> list[PersonalData]:
    """Return the findings in `text`, in order, without overlaps.

    Numbers count only if their check digits are right (payment cards: Luhn; IBAN: ISO 7064 mod 97-10; Chinese resident
    ids: GB 11643) or they have the form of a telephone number or a US social security number. It can miss and it can
    misjudge: the report is worth a look.
    """
    found: list[PersonalData] = []
    for search in _choose_searches(text):
        for finding in search(text):
            if all(finding.end <= other.start or other.end <= finding.start for other in found):
                found.append(finding)
    return sorted(found, key=lambda finding: finding.start)


def mask_personal_data(text: str) -> tuple[str, tuple[PersonalDataKind, ...]]:
    """Return `text` with every finding replaced by its mask, such as [EMAIL], and the kinds found, once each."""
    findings = find_personal_data(text)
    if not findings:
        return text, ()
    pieces, end = [], 0
    for finding in findings:
        pieces += [text[end : finding.start], MASKS[finding.kind]]
        end = finding.end
    return "".join([*pieces, text[end:]]), tuple(dict.fromkeys(finding.kind for finding in findings))


def _choose_searches(text: str) -> Iterator[Callable[[str], Iterator[PersonalData]]]:
    """Yield the searches that may find something, the surest first; most texts need none, which is fast to see."""
    if "@" in text:
        yield _find_emails
    digits = len(text.encode("utf-8", "surrogatepass").translate(None, _NOT_DIGITS))
    if digits >= _FEWEST_DIGITS and _NUMBER.search(text):
        yield from (_find_ibans, _find_cn_resident_ids, _find_cards, _find_ssns, _find_ipv4_addresses, _find_phones)
    if "::" in text or text.count(":") >= _COLONS:
        yield _find_ipv6_addresses


# RFC 5321 without quoted parts. Latin, Greek and Cyrillic letters first, as Chinese may precede an address without a
# blank; then letters of any script, which RFC 6531 allows. The length limits keep both linear.
_LETTER = r"A-Za-z0-9_\u00c0-\u024f\u0370-\u052f"
_EMAILS = (
    re.compile(
        rf"(?<![{_LETTER}.+%-])[{_LETTER}.+%'-]{{1,64}}@(?:[{_LETTER}-]{{1,63}}\.){{1,8}}[{_LETTER}]{{2,24}}(?![{_LETTER}@])"
    ),
    re.compile(r"(?<![\w.+%-])[\w.+%'-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w@])"),
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}", re.ASCII)
_CARD = re.compile(r"(?<![\d.,+-])(?<!\d[ -])\d(?:[ -]?\d){12,18}(?![ -]?\d)", re.ASCII)
_CN_ID = re.compile(r"(?<![0-9A-Za-z])[1-8]\d{5}(?:19|20)\d{9}[\dXx](?![0-9A-Za-z])", re.ASCII)
_SSN = re.compile(r"(?<![\d-])(?!000|666|9)\d{3}([- ])(?!00)\d{2}\1(?!0000)\d{4}(?![\d-]|[ ]\d)", re.ASCII)
_IPV4 = re.compile(r"(?<![\w.])(?<!version )(?<!Version )\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)", re.ASCII)
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{1,4}|:)(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])", re.ASCII)
_PHONE = re.compile(
    r"(?<![\w.,/$€£¥=+-])(?<!\d[ -])(?:\+|\(\+?)?\d(?:[ ().\-/]{0,2}\d){6,16}(?![\d%])(?![.,:/-]\d)", re.ASCII
)
_CALLED_PHONE = re.compile(
    r"(?:\b(?:phone|tel|telephone|mobile|cell|fax|call|whatsapp)\b|电话|手机|電話|携帯)[^\d\n+(]{0,16}"
    r"(?P<number>[+(]{0,2}\d(?:[ ().\-/]{0,2}\d){6,14})(?!\d)",
    re.ASCII | re.IGNORECASE,
)
_CN_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def _find_emails(text: str) -> Iterator[PersonalData]:
    yield from (PersonalData("email", *match.span()) for form in _EMAILS for match in form.finditer(text))


def _find_ibans(text: str) -> Iterator[PersonalData]:
    for match in _IBAN.finditer(text):
        length = iban_length(match.group())
        if length:
            yield PersonalData("iban", match.start(), match.start() + length)


def _find_cn_resident_ids(text: str) -> Iterator[PersonalData]:
    for match in _CN_ID.finditer(text):
        number = match.group()
        total = sum(int(digit) * weight for digit, weight in zip(number[:17], _CN_WEIGHTS, strict=True))
        if "10X98765432"[total % 11] == number[17].upper() and _is_date(number[6:14]):
            yield PersonalData("cn_resident_id", *match.span())


def _is_date(digits: str) -> bool:
    try:
        datetime.date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return False
    return True


def _find_cards(text: str) -> Iterator[PersonalData]:
    for match in _CARD.finditer(text):
        if is_card_number(re.sub(r"\D", "", match.group())):
            yield PersonalData("payment_card", *match.span())


def _find_ssns(text: str) -> Iterator[PersonalData]:
    yield from (PersonalData("us_ssn", *match.span()) for match in _SSN.finditer(text))


def _find_ipv4_addresses(text: str) -> Iterator[PersonalData]:
    if text.count(".") >= 3:
        yield from (PersonalData("ip_address", *m.span()) for m in _IPV4.finditer(text) if _is_host_address(m.group()))


def _find_ipv6_addresses(text: str) -> Iterator[PersonalData]:
    yield from (PersonalData("ip_address", *m.span()) for m in _IPV6.finditer(text) if _is_long_ipv6(m.group()))


def _is_host_address(address: str) -> bool:
    """Return whether it can be a host's address: not 127.0.0.1, 0.0.0.0, a net mask or a multicast group."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not (
        parsed.is_loopback or parsed.is_unspecified or parsed.is_multicast or address.startswith(("0.", "255."))
    )


def _is_long_ipv6(address: str) -> bool:
    """Distinguish from names such as `std::a` and times, which look like short addresses: three groups and a digit."""
    groups = [group for group in address.split(":") if group]
    return len(groups) >= 3 and any(character.isdigit() for character in address) and _is_host_address(address)


def _find_phones(text: str) -> Iterator[PersonalData]:
    for match in _CALLED_PHONE.finditer(text):
        yield PersonalData("phone", *match.span("number"))
    yield from (PersonalData("phone", *m.span()) for m in _PHONE.finditer(text) if is_phone_number(m.group()))
