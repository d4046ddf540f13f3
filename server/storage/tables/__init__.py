"""The tables, in SQLAlchemy 2: `from server.storage.tables import JobRow`. Their history is in `migrations/`.

Times are Unix seconds (UTC), as on the wire. Ids carry their kind as a prefix as OpenAI's do: `file-`, `ftjob-`.
What is listed page by page has a `number`, which grows with each row: ids are random and times are shared.
"""

from __future__ import annotations

from server.storage.tables.access import APIKeyRow
from server.storage.tables.aliases import AliasChangeRow, AliasRow
from server.storage.tables.base import BIG, DEFAULT_PROJECT, Base, is_id, new_id, now_s
from server.storage.tables.campaigns import (
    CampaignAnswerRow,
    CampaignAssignmentRow,
    CampaignInvitationRow,
    CampaignItemRow,
    CampaignPromptRow,
    CampaignRaterRow,
    CampaignRow,
)
from server.storage.tables.files import FileRow, UploadPartRow, UploadRow
from server.storage.tables.jobs import CheckpointPermissionRow, JobCheckpointRow, JobEventRow, JobRow
from server.storage.tables.ratings import ComparisonRow, RatingRow
from server.storage.tables.webhooks import WebhookDeliveryRow, WebhookEndpointRow

__all__ = [
    "BIG",
    "DEFAULT_PROJECT",
    "APIKeyRow",
    "AliasChangeRow",
    "AliasRow",
    "Base",
    "CampaignAnswerRow",
    "CampaignAssignmentRow",
    "CampaignInvitationRow",
    "CampaignItemRow",
    "CampaignPromptRow",
    "CampaignRaterRow",
    "CampaignRow",
    "CheckpointPermissionRow",
    "ComparisonRow",
    "FileRow",
    "JobCheckpointRow",
    "JobEventRow",
    "JobRow",
    "RatingRow",
    "UploadPartRow",
    "UploadRow",
    "WebhookDeliveryRow",
    "WebhookEndpointRow",
    "is_id",
    "new_id",
    "now_s",
]
