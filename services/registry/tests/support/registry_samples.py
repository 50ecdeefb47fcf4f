"""A small set of manifests that fit each other."""

TOOL = """\
apiVersion: paracle/v1
kind: Tool
metadata: {name: read-mail}
spec:
  description: reads a mail
  input: {type: object, properties: {file: {type: string}}, required: [file], additionalProperties: false}
  output: {type: object, properties: {text: {type: string}}}
  backend: {type: builtin, function: noop}
"""
BASE = """\
apiVersion: paracle/v1
kind: Agent
metadata: {name: base}
spec:
  description: all agents are this one
  instructions: You are careful.
  tools: [read-mail]
  limits: {turns: 5}
  final: [limits]
"""
CLASSIFY = """\
apiVersion: paracle/v1
kind: Agent
metadata: {name: classify}
spec:
  extends: base
  instructions: "{{ parent }} Classify {{ input.text }}"
  input: {type: object, properties: {text: {type: string}}}
  output: {type: object, properties: {label: {enum: [bug, other]}}}
"""
TRIAGE = """\
apiVersion: paracle/v1
kind: Workflow
metadata: {name: triage}
spec:
  input: {type: object, properties: {file: {type: string}}}
  steps:
    - {id: read, tool: read-mail, input: {file: "{{ input.file }}"}, retry: {max_attempts: 3, on: [tool_unavailable]}}
    - {id: classify, agent: classify, input: {text: "{{ steps.read.output.text }}"}}
  output: "{{ steps.classify.output }}"
"""


def together(*documents: str) -> str:
    return "---\n".join(documents)


ALL = together(TOOL, BASE, CLASSIFY, TRIAGE)
