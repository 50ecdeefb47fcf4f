"""Names in tools that end up in subjects."""

import pytest
from pydantic import TypeAdapter, ValidationError

from paracle_domain.tool.spec import WorkerTool

NAMES: TypeAdapter[str] = TypeAdapter(WorkerTool)


@pytest.mark.parametrize("name", ["", "a.b", "*", ">", "a b", "x" * 65])
def test_what_is_no_token_is_no_tool_of_a_worker(name: str):
    with pytest.raises(ValidationError, match="no name of a worker's tool"):
        NAMES.validate_python(name)


def test_a_token_is_a_tool_of_a_worker():
    assert NAMES.validate_python("look_up-2") == "look_up-2"
