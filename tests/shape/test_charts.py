"""Every chart renders into what a cluster takes. Links stand for `helm dependency build`, and Helm follows them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml
from helm_python import Chart
from tests.shape.repository import ROOT, SERVICES

HELM = ROOT / "deploy" / "helm"
CHARTS = {name.replace("_", "-"): name for name in SERVICES}
UMBRELLA = "paracle"
KUBERNETES = "1.34"
KINDS = {"ServiceAccount": 1, "Deployment": 1, "Service": 1, "PodDisruptionBudget": 1, "Job": 1}


def render(chart: str, values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    with Chart.load(str(HELM / chart)) as loaded:
        rendered = loaded.render(values or {}, name="try", namespace="here")
    return [document for text in rendered.values() for document in yaml.safe_load_all(text) if document]


def of_kind(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(document for document in documents if document["kind"] == kind)


def pods(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [document["spec"]["template"] for document in documents if document["kind"] in {"Deployment", "Job"}]


@pytest.mark.parametrize("chart", [*CHARTS, UMBRELLA])
def test_lint_finds_no_error(chart: str) -> None:
    assert helm_python.lint(str(HELM / chart))["errors"] == []


@pytest.mark.parametrize("chart", CHARTS)
def test_a_service_is_made_of_the_same_things_each_valid(chart: str) -> None:
    documents = render(chart)
    assert Counter(document["kind"] for document in documents) == KINDS
    for document in documents:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_the_umbrella_holds_every_service_and_can_leave_one_out() -> None:
    documents = render(UMBRELLA)
    assert Counter(document["kind"] for document in documents) == {kind: len(CHARTS) for kind in KINDS}
    assert len(render(UMBRELLA, {"observability": {"enabled": False}})) == len(documents) - len(KINDS)


@pytest.mark.parametrize("chart", CHARTS)
def test_pods_are_held_tightly(chart: str) -> None:
    for pod in pods(render(chart)):
        (container,) = pod["spec"]["containers"]
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@pytest.mark.parametrize("chart", CHARTS)
def test_secrets_are_referred_to_and_never_written(chart: str) -> None:
    migrations = ROOT / "services" / CHARTS[chart] / "src" / f"paracle_{CHARTS[chart]}" / "migrations"
    for pod in pods(render(chart)):
        env = {entry["name"]: entry for entry in pod["spec"]["containers"][0]["env"]}
        secret = {name for name in env if "DSN" in name or "PASSWORD" in name}
        assert bool(secret) == migrations.is_dir()
        assert all("secretKeyRef" in env[name]["valueFrom"] for name in secret)


@pytest.mark.parametrize("chart", CHARTS)
def test_a_service_can_be_a_nats_user_of_its_own(chart: str) -> None:
    values = {"nats": {"existingSecret": f"nats-{chart}", "inbox": f"_INBOX.{CHARTS[chart]}"}}
    for pod in pods(render(chart, values)):
        env = {entry["name"]: entry for entry in pod["spec"]["containers"][0]["env"]}
        assert env["PARACLE_NATS_URL"]["valueFrom"]["secretKeyRef"] == {"name": f"nats-{chart}", "key": "url"}
        assert env["PARACLE_NATS_INBOX"]["value"] == f"_INBOX.{CHARTS[chart]}"
    assert "PARACLE_NATS_INBOX" not in str(render(chart))


@pytest.mark.parametrize("chart", CHARTS)
def test_a_service_never_sees_the_role_that_makes_databases(chart: str) -> None:
    (container,) = of_kind(render(chart), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert "admin" not in str(container).lower()


@pytest.mark.parametrize("replicas", [1, 3])
def test_all_are_told_the_same_of_how_streams_are_kept(replicas: int) -> None:
    found = pods(render(UMBRELLA, {"global": {"nats": {"replicas": replicas}}} if replicas > 1 else None))
    env = [{entry["name"]: entry.get("value") for entry in pod["spec"]["containers"][0]["env"]} for pod in found]
    assert [one["PARACLE_NATS_REPLICAS"] for one in env] == [str(replicas)] * 2 * len(CHARTS)


@pytest.mark.parametrize("chart", CHARTS)
def test_probes_ask_what_the_services_answer(chart: str) -> None:
    container = of_kind(render(chart), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    ports = {port["name"] for port in container["ports"]}
    paths = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: probe["path"] for name, probe in paths.items()} == {
        "startup": "/readyz",
        "liveness": "/livez",
        "readiness": "/readyz",
    }
    assert {probe["port"] for probe in paths.values()} <= ports


@pytest.mark.parametrize("chart", CHARTS)
def test_no_port_is_offered_twice(chart: str) -> None:
    documents = render(chart)
    container = of_kind(documents, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    offered = [port["port"] for port in of_kind(documents, "Service")["spec"]["ports"]]
    assert sorted(set(offered)) == sorted(offered)
    assert [port["containerPort"] for port in container["ports"]] == offered


@pytest.mark.parametrize("chart", CHARTS)
def test_the_service_does_not_find_the_pod_that_provisions(chart: str) -> None:
    documents = render(chart)
    selector = of_kind(documents, "Service")["spec"]["selector"]
    found = [pod for pod in pods(documents) if selector.items() <= pod["metadata"]["labels"].items()]
    assert found == [of_kind(documents, "Deployment")["spec"]["template"]]


def test_values_reach_the_pods() -> None:
    documents = render(
        UMBRELLA,
        {
            "global": {
                "imagePrefix": "images.internal/paracle",
                "imageTag": "1.2.3",
                "nats": {"existingSecret": "nats"},
            },
            "registry": {"replicas": 1, "env": {"PARACLE_POSTGRES_POOL_SIZE": 4}},
        },
    )
    deployment = next(
        one for one in documents if one["kind"] == "Deployment" and one["metadata"]["name"] == "try-registry"
    )
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    env = {entry["name"]: entry for entry in container["env"]}
    assert container["image"] == "images.internal/paracle/paracle-registry:1.2.3"
    assert env["PARACLE_NATS_URL"]["valueFrom"]["secretKeyRef"] == {"name": "nats", "key": "url"}
    assert env["PARACLE_POSTGRES_POOL_SIZE"]["value"] == "4"
    budgets = [one["metadata"]["name"] for one in documents if one["kind"] == "PodDisruptionBudget"]
    assert "try-registry" not in budgets, "a budget for a single replica would block every drain"


POOLS = {
    "gpu": {
        "concurrency": 4,
        "replicas": 3,
        "memoryCeilingMb": 900,
        "nodeSelector": {"accelerator": "yes"},
        "env": {"PARACLE_SANDBOX_CONCURRENCY": 2},
    },
    "web_browser": {"replicas": 1},
}


def test_a_pool_has_pods_of_its_own() -> None:
    documents = render("agent-runtime", {"pools": POOLS})
    for document in documents:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    found = {one["metadata"]["name"]: one["spec"] for one in documents if one["kind"] == "Deployment"}
    assert found.keys() == {"try-agent-runtime", "try-agent-runtime-gpu", "try-agent-runtime-web-browser"}
    env = {name: env_of(spec) for name, spec in found.items()}
    served = {name: one.get("PARACLE_POOLS") for name, one in env.items()}
    assert list(served.values()) == [None, "gpu=4", "web_browser"]
    ceilings = {name: one["PARACLE_MEMORY_CEILING_MB"] for name, one in env.items()}
    assert list(ceilings.values()) == ["400", "900", "400"]
    gpu = found["try-agent-runtime-gpu"]
    assert (gpu["replicas"], gpu["template"]["spec"]["nodeSelector"]) == (3, {"accelerator": "yes"})
    assert gpu["template"]["spec"]["serviceAccountName"] == "try-agent-runtime"
    assert env["try-agent-runtime-gpu"]["PARACLE_SANDBOX_CONCURRENCY"] == "2"
    assert "nodeSelector" not in found["try-agent-runtime"]["template"]["spec"]
    (container,) = of_kind(documents, "Job")["spec"]["template"]["spec"]["containers"]
    assert "--pools=gpu,web_browser" in container["args"]
    budgets = [one["metadata"]["name"] for one in documents if one["kind"] == "PodDisruptionBudget"]
    assert budgets == ["try-agent-runtime", "try-agent-runtime-gpu"]


def env_of(deployment: dict[str, Any]) -> dict[str, str]:
    (container,) = deployment["template"]["spec"]["containers"]
    return {entry["name"]: entry.get("value", "") for entry in container["env"]}


def test_nobody_finds_the_pods_of_another_pool() -> None:
    documents = render("agent-runtime", {"pools": POOLS})
    templates = [one["spec"]["template"] for one in documents if one["kind"] == "Deployment"]
    selecting = [
        one["spec"]["selector"].get("matchLabels", one["spec"]["selector"])
        for one in documents
        if one["kind"] in {"Deployment", "Service", "PodDisruptionBudget"}
    ]
    for selector in selecting:
        assert len([pod for pod in templates if selector.items() <= pod["metadata"]["labels"].items()]) == 1


def test_keys_of_providers_are_files_of_the_service_alone() -> None:
    files = [{"secret": "shared"}, {"secret": "acme-keys", "tenant": "acme", "keys": ["groq"]}]
    documents = render("provider-gateway", {"keyFiles": files})
    [pod] = [one["spec"]["template"]["spec"] for one in documents if one["kind"] == "Deployment"]
    [volume] = [one for one in pod["volumes"] if one["name"] == "keys"]
    assert volume["projected"]["sources"] == [
        {"secret": {"name": "shared"}},
        {"secret": {"name": "acme-keys", "items": [{"key": "groq", "path": "acme/groq"}]}},
    ]
    [container] = pod["containers"]
    assert {"name": "keys", "mountPath": "/keys", "readOnly": True} in container["volumeMounts"]
    assert {"name": "PARACLE_PROVIDER_KEYS_DIR", "value": "/keys"} in container["env"]
    [job] = [one["spec"]["template"]["spec"] for one in documents if one["kind"] == "Job"]
    assert [one["name"] for one in job["volumes"]] == ["tmp"]
    assert [one["name"] for one in job["containers"][0]["volumeMounts"]] == ["tmp"]
    with pytest.raises(Exception, match="name the keys of the secret"):
        render("provider-gateway", {"keyFiles": [{"secret": "s", "tenant": "acme"}]})
    with pytest.raises(Exception, match="keyFiles belong to provider-gateway"):
        render("agent-runtime", {"keyFiles": files})


def test_only_the_agent_runtime_has_pools() -> None:
    with pytest.raises(Exception, match="pools belong to agent-runtime"):
        render("registry", {"pools": {"gpu": {}}})


@pytest.mark.parametrize(
    "values",
    [
        {"replicas": "two"},
        {"pools": {"GPU": {}}},
        {"pools": {"gpu": {"concurrency": 0}}},
        {"pools": {"gpu": {"pool": "x"}}},
        {"replica": 2},
        {"logLevel": "LOUD"},
        {"env": {"lower": "x"}},
        {"postgres": {"dsn": "postgresql://"}},
    ],
)
def test_bad_values_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=r"(?i)schema|additional|expected|must|enum|one of"):
        render("registry", values)


@pytest.mark.parametrize("chart", CHARTS)
def test_charts_hold_values_and_one_include_only(chart: str) -> None:
    template = (HELM / chart / "templates" / "service.yaml").read_text(encoding="utf-8")
    assert template == '{{ include "paracle-lib.service" . }}\n'
    assert (HELM / chart / "values.schema.json").samefile(HELM / "paracle-lib" / "service.schema.json")
