"""Questions to the audit log are answerable before they are sent."""

import pytest
from pydantic import ValidationError

from paracle_domain.audit import GetAudit, UsageReport
from paracle_domain.errors import MalformedMessage
from paracle_domain.ids import new_id
from paracle_domain.inference.usage import Usage
from paracle_domain.messages import CATALOG


@pytest.mark.parametrize("selection", [{"run_id": new_id("run")}, {"entity": "task", "id": "task_1"}])
def test_audit_of_a_run_or_of_an_entity(selection: dict[str, str]):
    request = GetAudit(**selection)
    assert GetAudit.decode(request.encode()) == request


@pytest.mark.parametrize(
    "selection",
    [
        {},
        {"entity": "task"},
        {"id": "task_1"},
        {"run_id": new_id("run"), "entity": "task"},
        {"run_id": new_id("run"), "entity": "task", "id": "task_1"},
    ],
)
def test_an_ambiguous_selection_is_refused_with_the_way_out(selection: dict[str, str]):
    with pytest.raises(ValidationError, match="either run_id, or entity and id"):
        GetAudit(**selection)


def test_a_malformed_question_names_its_field():
    with pytest.raises(MalformedMessage) as caught:
        GetAudit.decode(b'{"run_id":"nope"}')
    assert caught.value.path == "run_id"


def test_an_unknown_cost_survives_the_wire():
    report = UsageReport(run_id=new_id("run"), total=Usage(model_calls=1, cost_usd=None), unpriced_calls=1)
    again = UsageReport.model_validate_json(report.model_dump_json())
    assert again.total.cost_usd is None
    assert CATALOG["observability.get_usage"].answer is UsageReport  # type: ignore[attr-defined]  # a Request
