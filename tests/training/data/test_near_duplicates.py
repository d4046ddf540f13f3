"""Near duplicates: how alike texts are, found in an index, whatever the script; and that it never depends on chance."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest

from training.data.duplicates.near import NearDuplicates, compute_signature

ENGLISH = (
    "Photosynthesis is the process by which green plants turn sunlight, water and carbon dioxide into sugar and air. "
    "It takes place in the chloroplasts, mostly of the leaves, and feeds nearly all life on earth in the end."
)
CHINESE = (
    "光合作用是绿色植物利用阳光、水和二氧化碳制造糖类并释放氧气的过程。"
    "它主要发生在叶片的叶绿体中，几乎养活了地球上的所有生命。"
)
THAI = "การสังเคราะห์ด้วยแสงเป็นกระบวนการที่พืชสีเขียวใช้แสงแดดน้ำและคาร์บอนไดออกไซด์สร้างน้ำตาลและออกซิเจน"


def alike(one: str, other: str, threshold: float = 0.8) -> bool:
    """Whether `other` is found after `one` was added."""
    index = NearDuplicates(threshold)
    first, second = compute_signature(one), compute_signature(other)
    assert first is not None
    assert second is not None
    index.add(first, 1)
    return index.find(second) is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ENGLISH, ENGLISH.upper()),
        (ENGLISH, ENGLISH.replace(",", "").replace(".", "!")),
        (ENGLISH, ENGLISH.replace("nearly", "almost")),
        (CHINESE, CHINESE.replace("几乎", "差不多")),
        (CHINESE, CHINESE.replace("，", ",").replace("。", "")),
        (THAI, THAI + "ๆ"),
        ("你好", "你好！"),
    ],
)
def test_small_changes_are_seen_through(one: str, other: str) -> None:
    assert alike(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ENGLISH, CHINESE),
        ("What is the capital of France?", "What is the capital of Spain?"),
        ("法国的首都是哪里？", "西班牙的首都在什么地方？"),
        ("What is 12 + 7?", "What is 12 - 7?"),
        ("x = a + b", "x = a * b"),
        ("Translate into French: good morning", "Translate into French: good night"),
        (ENGLISH, " ".join(sorted(ENGLISH.split()))),
    ],
)
def test_different_texts_stay_apart(one: str, other: str) -> None:
    assert not alike(one, other)


def test_text_without_words_has_no_signature() -> None:
    assert [compute_signature(text) for text in ("", " \n", "…!?")] == [None, None, None]


def test_similarity_is_close_to_the_true_one() -> None:
    draw = random.Random(5)
    words = [f"w{number}" for number in range(4000)]
    index = NearDuplicates(0.5)
    one = draw.sample(words, 400)
    other = one[:340] + draw.sample(words, 60)
    shingles = [{tuple(text[place : place + 3]) for place in range(398)} for text in (one, other)]
    true = len(shingles[0] & shingles[1]) / len(shingles[0] | shingles[1])
    first, second = compute_signature(" ".join(one)), compute_signature(" ".join(other))
    assert first is not None
    assert second is not None
    index.add(first, 7)
    found = index.find(second)
    assert found is not None
    assert found[0] == 7
    assert found[1] == pytest.approx(true, abs=0.13)  # three standard errors of 128 hash functions


def test_most_pairs_above_the_threshold_are_found_and_none_far_below() -> None:
    draw = random.Random(9)
    words = [f"w{number}" for number in range(9000)]
    index = NearDuplicates(0.8)
    rows = [draw.sample(words, 100) for _ in range(300)]
    for line, row in enumerate(rows):
        found = compute_signature(" ".join(row))
        assert found is not None
        assert index.find_or_add(found, line) is None
    changed = [compute_signature(" ".join([*row[:97], "x", "y", "z"])) for row in rows]  # Jaccard 95 / 101
    hits = [index.find(found) for found in changed if found is not None]
    right = sum(hit is not None and hit[0] == line for line, hit in enumerate(hits))
    assert right >= 295


def test_signatures_are_the_same_under_every_hash_seed() -> None:
    program = (
        "from training.data.duplicates.near import compute_signature; "
        "print(compute_signature('one two three four').tolist())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1
    assert len(printed.pop()) > 100


def test_a_crowd_of_equal_rows_is_found_without_all_of_it_in_the_index() -> None:
    index = NearDuplicates(0.8)
    found = compute_signature(ENGLISH)
    assert found is not None
    for line in range(2000):
        index.add(found, line)
    assert len(list(index.find_all(found, skip=lambda line: False))) < 100
    assert index.find(found) == (0, 1.0)
