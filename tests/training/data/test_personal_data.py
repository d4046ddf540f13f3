"""Personal data is found by form and check digits, in several languages, and what only looks like it is left alone."""

from __future__ import annotations

import pytest

from training.data.cleaning.personal_data import PERSONAL_DATA_KINDS, find_personal_data, mask_personal_data

FOUND = [
    ("Mail jo.doe+news@mail.example.org.", "Mail [EMAIL]."),
    ("邮箱是abc@example.com请联系", "邮箱是[EMAIL]请联系"),
    ("写信给 张三@例子.公司 吧", "写信给 [EMAIL] 吧"),
    ("иван@почта.рф", "[EMAIL]"),
    ("andré.b@exämple.org", "[EMAIL]"),
    ("Call +49 30 123456 now", "Call [PHONE] now"),
    ("+86 138 1234 5678", "[PHONE]"),
    ("(212) 555-0123", "[PHONE]"),
    ("212.555.0187, ask for Al", "[PHONE], ask for Al"),
    ("1-800-555-0199", "[PHONE]"),
    ("手机13812345678。", "手机[PHONE]。"),
    ("座机 010-62345678", "座机 [PHONE]"),
    ("電話 090-1234-5678", "電話 [PHONE]"),
    ("020 7946 0958", "[PHONE]"),
    ("06 12 34 56 78", "[PHONE]"),
    ("Tel: 5550123", "Tel: [PHONE]"),
    ("Pay with 4111 1111 1111 1111.", "Pay with [PAYMENT_CARD]."),
    ("5555555555554444", "[PAYMENT_CARD]"),
    ("378282246310005", "[PAYMENT_CARD]"),
    ("IBAN GB82 WEST 1234 5698 7654 32 THANKS", "IBAN [IBAN] THANKS"),
    ("DE89370400440532013000", "[IBAN]"),
    ("from 203.0.113.9:8080", "from [IP_ADDRESS]:8080"),
    ("2001:db8:85a3::8a2e:370:7334", "[IP_ADDRESS]"),
    ("SSN 078-05-1120", "SSN [US_SSN]"),
    ("身份证11010519491231002X。", "身份证[CN_RESIDENT_ID]。"),
    ("a@b.co and c@d.io", "[EMAIL] and [EMAIL]"),
]

NOT_FOUND = [
    "4111111111111112",  # Luhn fails
    "4212883012996",  # 13 digits: a sum
    "GB82WEST12345698765433",  # check digits fail
    "110105194912310021",  # check digit fails
    "11010519491331002X",  # month 13
    "000-12-3456",
    "2023-01-15 and 12/31/2023",
    "1990-1995",
    "version 1.2.3.4",
    "127.0.0.1, 0.0.0.0 and 255.255.255.0",
    "999.1.1.1",
    "std::vector<int> a::b at 12:30:45",
    "3.14159265358979",
    "1,234,567,890 and 5 000 000 000",
    "2^64 = 18446744073709551616",
    "ISBN 978-3-16-148410-0",
    "1 2 3 4 5 6 7 8 9",
    "0 1 1 2 3 5 8 13 21",
    "0101 1010 0101",
    "@property and user@localhost",
    "E = 299792458 m/s",
]


@pytest.mark.parametrize(("text", "masked"), FOUND)
def test_personal_data_is_masked_in_place(text: str, masked: str) -> None:
    assert mask_personal_data(text)[0] == masked


@pytest.mark.parametrize("text", NOT_FOUND)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert find_personal_data(text) == []


def test_every_kind_is_found_by_its_place() -> None:
    text = (
        "jo@example.org, +49 30 1234567, 4111-1111-1111-1111, DE89370400440532013000, 203.0.113.9, 078-05-1120, "
        "11010519491231002X"
    )
    found = find_personal_data(text)
    assert [item.kind for item in found] == list(PERSONAL_DATA_KINDS)
    assert ", ".join(text[item.start : item.end] for item in found) == text


def test_masked_text_has_nothing_left_to_find() -> None:
    masked, kinds = mask_personal_data("\n".join(text for text, _ in FOUND))
    assert set(kinds) == set(PERSONAL_DATA_KINDS)
    assert find_personal_data(masked) == []
