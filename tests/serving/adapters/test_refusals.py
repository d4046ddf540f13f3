"""Over a hundred bad adapters, each with one fault: import refuses every one, names the fault, and leaves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving import AdapterError, BaseModel, import_adapter
from tests.serving.adapters.bad_adapters import BAD_ADAPTERS, Bad, with_tokenizer
from tests.serving.conftest import LIMITS


@pytest.mark.parametrize("bad", BAD_ADAPTERS, ids=str)
def test_a_bad_adapter_is_refused_with_its_reason(bad: Bad, base: BaseModel, tmp_path: Path) -> None:
    source = bad.write(tmp_path / "adapter", with_tokenizer(base))
    with pytest.raises(AdapterError) as caught:
        import_adapter(source, tmp_path / "adapters", base, LIMITS)
    message = str(caught.value)
    assert bad.words in message
    assert message.isprintable()
    assert len(message) < 1000
    assert list((tmp_path / "adapters").iterdir()) == []


def test_there_are_enough_of_them() -> None:
    assert len({bad.fault for bad in BAD_ADAPTERS}) == len(BAD_ADAPTERS) >= 60
