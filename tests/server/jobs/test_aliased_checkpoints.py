"""A checkpoint that an alias stands for outlives those that its job lets go of."""

from __future__ import annotations

import pytest

from server.aliases import changes
from tests.server.jobs.conftest import JobPlace

pytestmark = pytest.mark.both_databases


def test_a_checkpoint_that_an_alias_stands_for_is_kept_until_it_does_no_more(place: JobPlace) -> None:
    place.serve(checkpoints_kept=4)
    job_id = place.create(steps=20)
    place.wait(job_id)
    place.stop()
    oldest, second, *_ = place.checkpoints(job_id)
    with place.database.session() as session:
        changes.promote(session, "support", oldest.model, None)
    place.serve(checkpoints_kept=2)
    place.stop()
    assert [row.step_number for row in place.checkpoints(job_id)] == [5, 15, 20]
    assert oldest.model in place.served()
    assert second.model not in place.served()
    with place.database.session() as session:
        changes.delete(session, "support", None)
    place.serve(checkpoints_kept=2)
    assert [row.step_number for row in place.checkpoints(job_id)] == [15, 20]
    assert oldest.model not in place.served()
