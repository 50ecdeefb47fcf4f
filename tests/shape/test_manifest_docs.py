"""docs/manifests.md names every field of every manifest, with its true default, and no other."""

from __future__ import annotations

import json
import re
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from paracle_domain.agent.manifest import AgentManifest, ListEdit
from paracle_domain.agent.spec import Compaction, Delegate, Limits, ModelChoice
from paracle_domain.expression_syntax import FILTERS
from paracle_domain.guard.spec import JsonSchemaGuard, ModerationGuard, NatsGuard, PiiGuard, RegexGuard
from paracle_domain.manifest import AgentDocument, Metadata, WorkflowDocument, parse_document
from paracle_domain.provider.presets import PRESETS
from paracle_domain.provider.spec import (
    Capabilities,
    DeploymentLimits,
    HedgeSpec,
    KeyRef,
    KnownModel,
    ModelSpec,
    Price,
    ProviderSpec,
    Retries,
    RouteSpec,
    Timeouts,
)
from paracle_domain.tool.spec import (
    BuiltinBackend,
    Execution,
    HttpBackend,
    McpBackend,
    NatsBackend,
    Permissions,
    Probe,
    ToolApproval,
    ToolSpec,
)
from paracle_domain.trigger.spec import ScheduleSpec, SubjectSpec, TriggerSpec
from paracle_domain.workflow.graph import validate_workflow
from paracle_domain.workflow.spec import (
    ApprovalSpec,
    Approvers,
    CaseSpec,
    EmitSpec,
    FallbackSpec,
    LoopSpec,
    MapSpec,
    RetentionSpec,
    RetrySpec,
    StepSpec,
    SwitchSpec,
    WaitSpec,
    WorkflowSpec,
    WorkSpec,
)

DOCS = Path(__file__).parents[2] / "docs" / "manifests.md"
SECTIONS: dict[str, type[BaseModel]] = {
    "Document": AgentDocument,
    "Metadata": Metadata,
    "Agent": AgentManifest,
    "Model choice": ModelChoice,
    "Limits": Limits,
    "Compaction": Compaction,
    "Delegate": Delegate,
    "PII guard": PiiGuard,
    "Regex guard": RegexGuard,
    "JSON Schema guard": JsonSchemaGuard,
    "Moderation guard": ModerationGuard,
    "NATS guard": NatsGuard,
    "List edit": ListEdit,
    "Tool": ToolSpec,
    "Probe": Probe,
    "Tool approval": ToolApproval,
    "Builtin backend": BuiltinBackend,
    "HTTP backend": HttpBackend,
    "NATS backend": NatsBackend,
    "MCP backend": McpBackend,
    "Permissions": Permissions,
    "Execution": Execution,
    "Workflow": WorkflowSpec,
    "Step": StepSpec,
    "Retry": RetrySpec,
    "Retention": RetentionSpec,
    "Fallback": FallbackSpec,
    "Compensate": WorkSpec,
    "Map": MapSpec,
    "Loop": LoopSpec,
    "Switch": SwitchSpec,
    "Case": CaseSpec,
    "Approval": ApprovalSpec,
    "Escalation": Approvers,
    "Wait": WaitSpec,
    "Emit": EmitSpec,
    "Trigger": TriggerSpec,
    "Schedule": ScheduleSpec,
    "Subject": SubjectSpec,
    "Provider": ProviderSpec,
    "Key": KeyRef,
    "Known model": KnownModel,
    "Capabilities": Capabilities,
    "Price": Price,
    "Deployment limits": DeploymentLimits,
    "Timeouts": Timeouts,
    "Model": ModelSpec,
    "Route": RouteSpec,
    "Retries": Retries,
    "Hedge": HedgeSpec,
}


def _sections() -> dict[str, str]:
    parts = re.split(r"^#+ (.+)$", DOCS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _table(section: str) -> dict[str, str]:
    """Field to default, as the first table of the section has them."""
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", _sections()[section], flags=re.MULTILINE)
    return dict(rows)


def _shown(field: FieldInfo) -> str:
    """A default as the tables show it: objects with defaults of their own, empty texts and nulls are `none`."""
    if field.is_required():
        return "required"
    value: Any = field.get_default(call_default_factory=True)
    match value:
        case None | "" | BaseModel():
            return "none"
        case Enum():
            return f"`{value.value}`"
        case tuple():
            return f"`{json.dumps(list(value))}`"
        case float() if value.is_integer():
            return f"`{int(value)}`"
        case str():
            return f"`{value}`"
        case _:
            return f"`{json.dumps(value)}`"


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_stands_in_its_table_with_its_default(section: str) -> None:
    fields = {info.alias or name: _shown(info) for name, info in SECTIONS[section].model_fields.items()}
    if section == "Document":
        fields["apiVersion"] = "required"  # the model has a default, parsing asks for it
    assert _table(section) == fields


def test_every_manifest_shown_is_accepted() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 17
    for index, block in enumerate(blocks, 1):
        document = parse_document(yaml.safe_load(block), index, DOCS.name)
        assert document.metadata.name
        if isinstance(document, WorkflowDocument):
            assert validate_workflow(document.spec) == []


def test_every_preset_stands_in_its_table() -> None:
    row = r"^\| `([a-z-]+)` \| .*?`(https?://\S+)` \| `?(\w+)`? \|$"
    rows = re.findall(row, _sections()["Preset"], flags=re.MULTILINE)
    known = {name: (preset.base_url, preset.key or "none") for name, preset in PRESETS.items()}
    known["azure"] = ("https://RESOURCE.openai.azure.com/openai/v1", "AZURE_OPENAI_API_KEY")
    assert {name: (url, key) for name, url, key in rows} == known


def test_every_filter_is_listed() -> None:
    listed = set(re.findall(r"`(\w+)`", _sections()["Expressions"].partition("Filters:")[2]))
    assert listed == FILTERS - {"d"}, "`d` is short for `default`"
